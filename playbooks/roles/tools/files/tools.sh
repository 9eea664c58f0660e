# See that programs are there: PROGRAM:PACKAGE…, from Debian's packages where one is missing.
# What a package would start is neither started now nor at boot. Exit 3 = one cannot be had.
set -eu
PATH=$FOLDER/bin:$PATH:/usr/sbin:/sbin

missing=''
for pair in "$@"; do
  command -v "${pair%:*}" > /dev/null || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get > /dev/null; then
  echo "not here:$missing (names of Debian's packages); install them on the load generator"
  exit 3
fi
mkdir -p "$FOLDER"
log=$FOLDER/tools.log
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\nexit 101\n' > $policy
  chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
if ! { timeout 300 apt-get -q update \
  && timeout 300 apt-get -qy install --no-install-recommends $missing; } > "$log" 2>&1; then 
  echo "not here, and not as packages:$missing: $(tail -n 1 "$log")"
  exit 3
fi
for package in $missing; do
  [ "$package" != nginx-light ] || [ ! -d /run/systemd/system ] || systemctl -q disable nginx
done
echo "installed:$missing"
