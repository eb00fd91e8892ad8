// Command findpg prints the folder of the PostgreSQL server binaries that
// muster would run, and fails with one line that says what to install when the
// machine has none. The set-up asks it, so that there is one search and not two.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/muster-id/muster/internal/pgserver"
)

func main() {
	dir, err := pgserver.Find(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "muster:", err)
		os.Exit(1)
	}
	fmt.Println(dir)
}
