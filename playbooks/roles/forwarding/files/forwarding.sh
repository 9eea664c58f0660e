# A guest as a router, by POSIX sh alone.
#   begin   forward IPv4 between its NICs, and remember how it was before
#   end     as it was before
# FOLDER keeps how it was; prints "changed" where something did.
set -eu
switch=/proc/sys/net/ipv4/ip_forward
kept=$FOLDER/ip_forward

begin() {
  mkdir -p "$FOLDER"
  was=$(cat $switch)
  [ -e "$kept" ] || echo "$was" > "$kept"
  [ "$was" = 1 ] && return
  echo 1 > $switch
  echo changed
}

end() {
  [ -e "$kept" ] || return 0
  if [ "$(cat "$kept")" != "$(cat $switch)" ]; then
    cat "$kept" > $switch
    echo changed
  fi
  rm "$kept"
}

"$@"
