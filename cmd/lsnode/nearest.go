package main

import (
	"fmt"
	"strings"
)

// hint returns what to add to a message about an unknown word: the known one
// nearest to it, unless none is near.
func hint(word string, known []string) string {
	if near := nearest(word, known); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// nearest returns the known word that differs least from word, or nothing if
// each of them differs in more than a third of it.
func nearest(word string, known []string) string {
	best, bestDistance := "", (len(word)+2)/3+1
	for _, k := range known {
		if d := distance(normal(word), normal(k)); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// normal takes away what is most often confused.
func normal(s string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(s))
}

// distance counts the letters to insert, delete or replace to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(row[j]+1, row[j+1]+1, replace)
		}
	}
	return row[len(b)]
}
