#!/bin/sh
# Stores a total in a database, unless a later leader has stored one:
#
#     leaderrun --lock default/report -- ./sql.sh report.db 42
#
# The row remembers the token of who wrote it last, as a number. The comparison is part of the statement, so that
# nothing can happen in between. PostgreSQL takes the same statements. Where one transaction changes several rows, begin it
# with such a statement on a row of its own, and roll it back when that changed nothing.
set -eu

changed=$(sqlite3 -bail "$1" <<SQL
PRAGMA busy_timeout = 5000;
CREATE TABLE IF NOT EXISTS report (name TEXT PRIMARY KEY, total INTEGER, token NUMERIC(40) NOT NULL);
INSERT INTO report VALUES ('today', $2, $LEADERRUN_FENCING_TOKEN)
    ON CONFLICT (name) DO UPDATE SET total = excluded.total, token = excluded.token
    WHERE report.token <= excluded.token;
SELECT 'changed ' || changes();
SQL
)
case $changed in
*'changed 1') ;;
*) echo "a later leader has been here" >&2; exit 1 ;;
esac
