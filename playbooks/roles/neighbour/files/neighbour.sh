# What keeps a guest busy while another is measured, by POSIX sh alone.
#   find                  see that there is stress-ng, or stress
#   begin SECONDS WORD…   start stress-ng (or stress) with these words; it ends by itself after so long
#   end                   end it and all it started; prints "gone" and why where it had ended before
# Exit 3 = neither is here. FOLDER keeps the process's id and what it printed.
set -eu
PATH=$PATH:/usr/sbin:/sbin
kept=$FOLDER/neighbour.pid
log=$FOLDER/neighbour.log

ours() {
  # a process of that number may be another's by now
  grep -qs stress "/proc/$pid/cmdline"
}

find() {
  program=$(command -v stress-ng || command -v stress) || {
    echo "neither stress-ng nor stress is on this guest: apt-get install stress-ng"
    exit 3
  }
}

begin() {
  end > /dev/null
  seconds=$1
  shift
  find
  mkdir -p "$FOLDER"
  : > "$log"
  setsid "$program" "$@" --timeout "${seconds}s" >> "$log" 2>&1 < /dev/null &
  pid=$!
  echo "$pid" > "$kept"
  for _ in $(seq 100); do
    grep -q 'dispatching hogs' "$log" && return 0
    kill -0 "$pid" 2> /dev/null || break
    sleep 0.1 # nothing tells when the workers run
  done
  echo "$program did not start: $(tail -n 2 "$log" | tr '\n' ' ')"
  end > /dev/null
  exit 1
}

end() {
  [ -e "$kept" ] || return 0
  pid=$(cat "$kept")
  if ours; then
    kill -s KILL -- -"$pid" # its workers are of its group
    for _ in $(seq 100); do
      kill -s 0 -- -"$pid" 2> /dev/null || break
      sleep 0.1 # a shell cannot wait for who is not its child
    done
  else
    echo "gone: $(tail -n 1 "$log")"
  fi
  rm -f "$kept"
}

"$@"
