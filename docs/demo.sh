#!/bin/sh
# Prints the demonstration in README.md: two candidates compete for a lock; one is stopped, and then the other crashes.
# Needs leaderrun in the PATH and takes half a minute.
set -eu
directory=$(mktemp -d)
trap 'kill -9 $(cat "$directory"/*.pid) 2>/dev/null || true; rm -rf "$directory"' EXIT
cd "$directory"

# Starts candidate $1, and prints its name in front of each line of its output.
candidate() {
    mkfifo "$1.pipe"
    sed -u "s/^/$1 | /" <"$1.pipe" &
    leaderrun --lock file:demo.lease --identity "$1" -- sh -c 'sleep 0.5; echo working; exec sleep 1000' \
        >"$1.pipe" 2>&1 &
    echo $! >"$1.pid"
}

# Waits until candidate $1 holds the lock and has had time to start its command.
leads() {
    until leaderrun status --lock file:demo.lease | grep -q "^holder *$1\$"; do sleep 0.1; done
    sleep 1
}

candidate a
leads a
candidate b
sleep 1
echo '--- a is stopped'
kill -TERM "$(cat a.pid)"
leads b
rm a.pipe
candidate a
sleep 1
echo '--- b and its machine crash'
kill -KILL "$(pgrep -P "$(cat b.pid)")" "$(cat b.pid)"
leads a
