#!/bin/sh
# Replaces a file with the contents of stdin, unless a later leader has replaced it:
#
#     leaderrun --lock default/report -- sh -c 'make-report | ./file.sh /srv/report'
#
# FILE.token contains the greatest token so far. All writers of the file must use this script, on a file system where flock
# works between all of them. A writer may be stopped at any line: before it has the file's lock, it has changed nothing, and while
# it has the lock, the others wait.
set -eu

file=$1 token=$LEADERRUN_FENCING_TOKEN
cat >"$file.$token.new"
exec 9>"$file.lock"
flock 9
greatest=0
[ ! -e "$file.token" ] || greatest=$(cat "$file.token")
# The test is negated so that a token that is not a number also stops the script.
if ! [ "$token" -ge "$greatest" ]; then
    rm "$file.$token.new"
    echo "a later leader has written $file, or $file.token is not a number" >&2
    exit 1
fi
# The token is stored on the disk first: if the machine stops before the file is replaced, older leaders are still refused.
echo "$token" >"$file.token.new"
sync "$file.token.new"
mv "$file.token.new" "$file.token"
sync "$(dirname "$file")"
mv "$file.$token.new" "$file"
