// Package examples holds programs that use Muster from outside, each a module
// of its own.
package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestExamplesAreSound lets the compiler and vet look at each example, so that
// none is left behind when a name changes.
func TestExamplesAreSound(t *testing.T) {
	t.Parallel()
	modules, err := filepath.Glob("*/go.mod")
	if err != nil || len(modules) == 0 {
		t.Fatal(modules, err)
	}
	for _, m := range modules {
		cmd := exec.CommandContext(t.Context(), "go", "vet", "./...")
		cmd.Dir = filepath.Dir(m)
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", cmd.Dir, err, out)
		}
	}
}
