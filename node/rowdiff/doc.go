// Package rowdiff tells in what tables and rows two SQLite databases differ, as
// SQL: what a person needs to decide about commits that were put in quarantine.
//
//	kept copy ──┐                          ┌▶ INSERT  rows that only the kept copy has
//	            ├─▶ schema, then each table ┼▶ DELETE  rows that only the other has
//	database  ──┘   by its key              └▶ UPDATE  rows that are otherwise
//
// The statements would make the database what the kept copy is. Beside each
// stands, as a comment, what the database has, so that both sides can be read.
//
// Rows of a table are matched by its declared primary key, or by rowid where
// there is none or where it can't tell rows apart. Values are compared by
// storage class and content. Generated columns are left out, since they follow
// from the others, and so are the rows of virtual tables, whose content is in
// tables of their own.
//
// Both databases are opened read-only, each with its own connection and in one
// read transaction. Memory is bounded by the largest row, and output by a limit;
// what is left out is counted.
package rowdiff
