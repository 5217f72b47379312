#!/bin/sh
# Replaces a file by what comes in, unless a later leader has replaced it:
#
#     leaderrun --lock default/report -- sh -c 'make-report | ./file.sh /srv/report'
#
# FILE.token remembers the greatest token. Everybody who writes the file has to do it like this, and on a file system where flock works
# between all of them. A writer that is stopped at any line does no harm: up to the lock it has changed nothing, and behind it the others wait.
set -eu

file=$1 token=$LEADERRUN_FENCING_TOKEN
cat >"$file.$token.new"
exec 9>"$file.lock"
flock 9
greatest=$(cat "$file.token" 2>/dev/null || echo 0)
if [ "$token" -lt "$greatest" ]; then
    rm "$file.$token.new"
    echo "a later leader has been here" >&2
    exit 1
fi
# The token first: when the machine stops in between, nobody older may come after it.
echo "$token" >"$file.token.new"
mv "$file.token.new" "$file.token"
mv "$file.$token.new" "$file"
