package apply_test

import (
	"fmt"
	"os"
)

// playRole is main of the processes that tests start.
func playRole(role string, args []string) int {
	fmt.Fprintln(os.Stderr, "unknown role", role, args)
	return 2
}
