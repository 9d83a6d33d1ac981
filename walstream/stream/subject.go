package stream

import (
	"fmt"
	"strings"

	"github.com/lsnode/lsnode/walstream"
)

const (
	subjectRoot   = "lsnode."
	maxClusterLen = 128
)

// validCluster tells whether id can be one token of a NATS subject.
func validCluster(id string) bool {
	if id == "" || len(id) > maxClusterLen {
		return false
	}
	for _, r := range id {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
		default:
			return false
		}
	}
	return true
}

// subject returns lsnode.CLUSTER.DB. A dot in a database's name would separate
// tokens, and a leading one make an empty token, so it travels as a tilde, which
// no name has.
func subject(cluster, db string) string {
	return subjectRoot + cluster + "." + strings.ReplaceAll(db, ".", "~")
}

// subjectAll matches the subjects of all databases of a cluster.
func subjectAll(cluster string) string { return subjectRoot + cluster + ".*" }

// databaseOf is the inverse of subject.
func databaseOf(cluster, subj string) (string, error) {
	token, ok := strings.CutPrefix(subj, subjectRoot+cluster+".")
	db := strings.ReplaceAll(token, "~", ".")
	if !ok || strings.Contains(token, ".") || !walstream.ValidName(db) {
		return "", fmt.Errorf("read subject %q: not of a database of this cluster", subj)
	}
	return db, nil
}
