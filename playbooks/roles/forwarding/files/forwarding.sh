# A guest as a router, by POSIX sh alone.
#   begin   forward IPv4 between its NICs, and remember how it was before
#   end     as it was before
# Guests may share a host's network: how that was is remembered once, and comes back when the last
# of them ends. FOLDER is the guest's own, and its name there; prints "changed" where something did.
set -eu
switch=/proc/sys/net/ipv4/ip_forward
network=$(readlink /proc/self/ns/net | tr -dc '0-9')
kept=/run/provision-forwarding-$network
mine=$kept/by$(echo "$FOLDER" | tr / _)

begin() {
  was=$(cat $switch)
  if mkdir "$kept" 2> /dev/null; then # the first, so nobody has changed it yet
    echo "$was" > "$kept/was"
  fi
  : > "$mine"
  [ "$was" = 1 ] && return
  echo 1 > $switch
  echo changed
}

end() {
  [ -e "$mine" ] || return 0
  rm "$mine"
  for other in "$kept"/by*; do
    if [ -e "$other" ]; then return 0; fi
  done
  # another may have been the last at the same moment, and does the same
  was=$(cat "$kept/was" 2> /dev/null) || return 0
  if [ "$was" != "$(cat $switch)" ]; then
    echo "$was" > $switch
    echo changed
  fi
  rm -rf "$kept"
}

"$@"
