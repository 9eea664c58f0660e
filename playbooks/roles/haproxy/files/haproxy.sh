# HAProxy on a guest; serving.sh comes before it.
#   install                          see that there is one, from the distribution's package if need be
#   serve S ADDRESS ORIGIN PORT…     from port 8080 of each address to port PORT of its origin, one
#                                    request per connection; afresh, and it ends after S seconds
#   stop
# Exit 3 = there is none. KEEP says that the machine's own services and settings are not ours.
listens=8080

install() {
  if ! command -v haproxy > /dev/null; then
    if [ -n "${KEEP-}" ]; then
      echo "no haproxy: none in $PATH, and nothing is installed on a host that is not ours"
      exit 3
    fi
    if ! package haproxy > "$log" 2>&1; then
      echo "no haproxy: not here, and not as a package: $(tail -n 1 "$log")"
      exit 3
    fi
  fi
  # nothing but ours is to run: the package starts one of its own
  if [ -z "${KEEP-}" ] && [ -d /run/systemd/system ] && systemctl -q is-active haproxy; then
    systemctl -q disable --now haproxy
  fi
  echo fingerprint "$(haproxy -v | awk 'NR == 1 { print $3 }')"
}

configuration() {
  # what fails is to be seen: no retries, no health checks, no reuse of connections
  cat << END
defaults
  mode http
  option httpclose
  retries 0
  timeout connect 5s
  timeout client 30s
  timeout server 30s
END
  number=0
  while [ $# -gt 0 ]; do
    number=$((number + 1))
    echo "listen link$number"
    echo "  bind $1:$listens"
    echo "  server origin $2:$3"
    shift 3
  done
}

serve() {
  lifetime_s=$1
  shift
  stop
  : > "$log"
  configuration "$@" > "$FOLDER/haproxy.cfg"
  first=$1
  [ $# -le 3 ] || several=yes
  while [ $# -gt 0 ]; do
    [ -z "${several-}" ] || own_addresses "$1"
    free "$1" $listens
    shift 3
  done
  # as a client of the origin: ports enough, whatever closed them
  [ -n "${KEEP-}" ] || echo "10240 65535" > /proc/sys/net/ipv4/ip_local_port_range
  start "$first" $listens haproxy -db -f "$FOLDER/haproxy.cfg"
}

"$@"
