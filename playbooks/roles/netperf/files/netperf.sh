# netperf on a guest or load generator; serving.sh comes before it.
#   tell                   tell which netperf this is
#   install                the same, installing the distribution's package where there is none
#   serve S ADDRESS PORT…  a netserver for each address and port, afresh, that ends by itself
#                          after S seconds
# Exit 3 = no usable netperf here. KEEP says that the machine's own services are not ours to end.

usable() {
  command -v netperf > /dev/null && command -v netserver > /dev/null || return 1
  # without --enable-demo there are no interim results, hence no common window
  said=$(netperf -D -0.2 -V 2>&1) && ! echo "$said" | grep -q 'Demo Mode not configured'
}

tell() {
  if ! usable; then
    echo "no usable netperf: ${1:-none in $PATH} ${said:-}"
    exit 3
  fi
  echo "paths $(command -v netperf) $(command -v netserver)"
  sums=$(sha256sum "$(command -v netperf)" "$(command -v netserver)" | cut -d ' ' -f 1)
  # shellcheck disable=SC2086
  echo fingerprint "$(netperf -V | awk '{ print $NF }')" $sums
}

install() {
  if usable; then
    tell
  elif package netperf > "$log" 2>&1; then
    echo "package installed"
    tell
  else
    tell "not here, and not as a package: $(tail -n 1 "$log")"
  fi
}

serve() {
  lifetime_s=$1
  shift
  stop
  # Debian's package starts one of its own, on all addresses
  if [ -z "${KEEP-}" ] && [ -x /etc/init.d/netperf ] && pidof netserver > /dev/null; then
    /etc/init.d/netperf stop && update-rc.d netperf disable
  fi > /dev/null 2>&1 || true
  : > "$log"
  [ $# -le 2 ] || several=yes
  while [ $# -gt 0 ]; do
    [ -z "${several-}" ] || own_addresses "$1"
    free "$1" "$2"
    start "$1" "$2" netserver -D -4 -L "$1" -p "$2"
    shift 2
  done
}

"$@"
