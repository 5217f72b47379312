#!/bin/sh
# Stores a total in a database, unless a later leader has stored one:
#
#     leaderrun --lock default/report -- ./sql.sh report.db 42
#
# The row contains the token of the leader that wrote it last, as a number. The comparison is part of the statement, so
# nothing can happen in between. PostgreSQL accepts the same statements. To change several rows in one transaction, begin it
# with such a statement on a separate row. If that changes nothing, roll the transaction back.
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
*) echo "a later leader has written this row" >&2; exit 1 ;;
esac
