# A sockperf server for each ADDRESS PORT…; serving.sh comes before it.
lifetime_s=86400
command -v sockperf > /dev/null || package sockperf > "$log" 2>&1
stop
while [ $# -gt 0 ]; do
  free "$1" "$2"
  start "$1" "$2" sockperf server --tcp -i "$1" -p "$2"
  shift 2
done
