# Answers each line "look" with one line; "open" opens a new connection first.
import sqlite3, sys, signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)  # its parent ends it by closing stdin
path, timeout, query = sys.argv[1], float(sys.argv[2]), sys.argv[3]
conn = sqlite3.connect(path, timeout=timeout)
for line in sys.stdin:
    if line.strip() == "open":
        conn.close()
        conn = sqlite3.connect(path, timeout=timeout)
        continue
    print(conn.execute(query).fetchone()[0], flush=True)
conn.close()
