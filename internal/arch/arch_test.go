package arch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheModuleKeepsItsArrows(t *testing.T) {
	imports, err := Imports("../..")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, i := range imports {
		room, _, _ := strings.Cut(i.File, "/")
		seen[room] = true
		if wrong := Check(i); wrong != "" {
			t.Error(wrong)
		}
	}
	for _, room := range []string{"domain", "eventstore", "internal"} {
		if !seen[room] {
			t.Errorf("no file of %s was looked at", room)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		file, path string
		ok         bool
	}{
		{"domain/user.go", "time", true},
		{"domain/user.go", Module + "/domain/password", true},
		{"domain/password/hash.go", "golang.org/x/crypto/argon2", true},
		{"domain/user.go", Module + "/eventstore", false},
		{"domain/user.go", Module + "/internal/pgserver", false},
		{"domain/user.go", "net/http", false},
		{"domain/user.go", "os", false},
		{"domain/user_test.go", "os", true},
		{"eventstore/store.go", Module + "/domain", false},
		{"eventstore/store_test.go", Module + "/domain", false},
		{"eventstore/store.go", Module + "/migrations", true},
		{"eventstore/store.go", Module + "/internal/pgtest", false},
		{"eventstore/store_test.go", Module + "/internal/pgtest", true},
		{"eventstore/store_test.go", Module + "/internal/pgserver", false},
		{"projections/users.go", Module + "/domain", true},
		{"projections/users.go", Module + "/consumers", false},
		{"consumers/mail.go", Module + "/importer", false},
		{"importer/import.go", Module + "/handlers", false},
		{"importer/source/okta.go", Module + "/proto/zitadel", false},
		{"handlers/users.go", Module + "/projections", true},
		{"handlers/users.go", Module + "/cmd/muster", false},
		{"handlers/users.go", Module + "/internal/pgserver", false},
		{"cmd/muster/serve.go", Module + "/handlers", true},
		{"internal/pgserver/find.go", Module + "/internal/filelock", true},
		{"internal/pgserver/find.go", Module + "/domain", false},
		{"internal/pgtest/pgtest.go", Module + "/migrations", true},
		{"internal/pgtest/pgtest.go", Module + "/eventstore", false},
		{"utils/strings.go", "strings", false},
		{"main.go", "fmt", false},
	} {
		if wrong := Check(Import{tc.file, tc.path}); (wrong == "") != tc.ok {
			t.Errorf("%s imports %s: %q", tc.file, tc.path, wrong)
		}
	}
}

// TestAForbiddenImportIsFound plants one in a module on disk, in a file that
// only another system would compile.
func TestAForbiddenImportIsFound(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "domain", "deep")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	src := "//go:build plan9\n\npackage deep\n\nimport (\n\t\"time\"\n\n\tstore \"" + Module + "/eventstore\"\n)\n\nvar _ = store.Any\nvar _ time.Time\n"
	if err := os.WriteFile(filepath.Join(dir, "deep.go"), []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	imports, err := Imports(root)
	if err != nil || len(imports) != 2 {
		t.Fatalf("Imports = %v, %v", imports, err)
	}
	var wrong []string
	for _, i := range imports {
		if text := Check(i); text != "" {
			wrong = append(wrong, text)
		}
	}
	want := "domain/deep/deep.go: domain may not import " + Module + "/eventstore"
	if len(wrong) != 1 || wrong[0] != want {
		t.Errorf("found %q, want %q", wrong, want)
	}
}
