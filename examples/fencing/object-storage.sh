#!/bin/sh
# Puts a file into object storage, unless a later leader has put one there:
#
#     leaderrun --lock default/report -- ./object-storage.sh my-bucket report.json ./report.json
#
# The object's metadata remembers the token of who put it. The store compares: it takes the new object only while the one that was looked
# at is still there, or, where there was none, while there still is none.
set -eu

bucket=$1 key=$2 body=$3 token=$LEADERRUN_FENCING_TOKEN
# "None" is how the AWS command line shows an object without a token. A failure to look counts as an object that is not there: then the store refuses.
found=$(aws s3api head-object --bucket "$bucket" --key "$key" --query '[ETag, Metadata.token]' --output text) || found=
etag=$(echo "$found" | cut -f 1) greatest=$(echo "$found" | cut -f 2)
if [ -z "$found" ]; then
    set -- --if-none-match '*'
else
    case $greatest in None | '') greatest=0 ;; esac
    # Said this way round, what is no number stops the script, too.
    if ! [ "$token" -ge "$greatest" ]; then
        echo "a later leader has been here, or the object's token is no number" >&2
        exit 1
    fi
    set -- --if-match "$etag"
fi
aws s3api put-object --bucket "$bucket" --key "$key" --body "$body" --metadata "token=$token" "$@" >/dev/null
