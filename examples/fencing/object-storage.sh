#!/bin/sh
# Puts a file into object storage, unless a later leader has put one there:
#
#     leaderrun --lock default/report -- ./object-storage.sh my-bucket report.json ./report.json
#
# The object's metadata contain the token of the leader that put it. The store accepts the new object only if the object that
# this script has read is still there. If there was no object, the store accepts the new one only if there still is none.
set -eu

bucket=$1 key=$2 body=$3 token=$LEADERRUN_FENCING_TOKEN
# The AWS command line prints "None" for an object without a token. A failed read counts as a missing object; if the object
# exists, the store then refuses the write.
found=$(aws s3api head-object --bucket "$bucket" --key "$key" --query '[ETag, Metadata.token]' --output text) || found=
etag=$(echo "$found" | cut -f 1) greatest=$(echo "$found" | cut -f 2)
if [ -z "$found" ]; then
    set -- --if-none-match '*'
else
    case $greatest in None | '') greatest=0 ;; esac
    # The test is negated so that a token that is not a number also stops the script.
    if ! [ "$token" -ge "$greatest" ]; then
        echo "a later leader has put this object, or the object's token is not a number" >&2
        exit 1
    fi
    set -- --if-match "$etag"
fi
aws s3api put-object --bucket "$bucket" --key "$key" --body "$body" --metadata "token=$token" "$@" >/dev/null
