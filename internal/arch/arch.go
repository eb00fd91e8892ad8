// Package arch holds the rule of which room may import which. It is a rule and
// its check; the test applies it to the whole module.
package arch

import (
	"cmp"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Module is the module's path.
const Module = "github.com/muster-id/muster"

// anything marks a room that may import every other.
const anything = "*"

// rooms says what each room, a folder at the module's root, may import beyond
// itself. A room that is not named here may not exist.
//
// All may import proto (the wire's messages) only where it is listed; tests
// are held as everything else is, and may import what internal has for tests
// and migrations besides.
var rooms = map[string][]string{
	"domain":      {},
	"eventstore":  {"migrations"},
	"migrations":  {},
	"proto":       {},
	"projections": {"domain", "eventstore", "migrations"},
	"consumers":   {"domain", "eventstore", "migrations"},
	"importer":    {"domain", "eventstore", "migrations"},
	"handlers":    {"domain", "eventstore", "projections", "consumers", "importer", "migrations", "proto"},
	"cmd":         {anything},
	"scripts":     {"internal"},
	"examples":    {"domain", "eventstore", "consumers", "migrations", "internal"},
}

// internals says the same for packages below internal, where it differs from
// "other internal packages only". The measuring program is a command in all
// but name.
var internals = map[string][]string{
	"pgtest":  {"migrations"},
	"bench":   {anything},
	"chaos":   {"eventstore", "consumers"},
	"hostile": {"eventstore", "migrations"},
	// For tests only.
	"servicetest": {"eventstore", "handlers", "migrations", "projections"},
}

// forTests are the packages below internal that every room's tests may import.
var forTests = []string{"browsertest", "logtest", "pgtest", "servicetest"}

// forbidden lists what the pure room may not even have from the standard
// library: the outside world. Tests may.
var forbidden = map[string][]string{
	"domain": {"net", "net/http", "os", "os/exec", "database/sql", "io/fs", "log"},
}

// Import is an import of one package in a source file.
type Import struct {
	// File is the importing file's path below the module's root, with slashes.
	File string
	// Path is what it imports.
	Path string
}

// Check returns what is wrong with an import, or "".
func Check(i Import) string {
	room, rest, _ := strings.Cut(i.File, "/")
	test := strings.HasSuffix(i.File, "_test.go")
	if !strings.Contains(i.File, "/") {
		return i.File + ": code has a room, and the module's root is none"
	}
	if !test && slices.Contains(forbidden[room], i.Path) {
		return fmt.Sprintf("%s: %s is pure, and imports %s", i.File, room, i.Path)
	}
	below, ours := strings.CutPrefix(i.Path, Module+"/")
	target, inner, _ := strings.Cut(below, "/")
	inner, _, _ = strings.Cut(inner, "/")

	allowed, known := rooms[room]
	if room == "internal" {
		inside, _, _ := strings.Cut(rest, "/")
		allowed, known = internals[inside], true
	}
	switch {
	case !known:
		return fmt.Sprintf("%s: no room is called %s", i.File, room)
	case !ours, target == room, slices.Contains(allowed, anything), slices.Contains(allowed, target):
		return ""
	case test && (target == "migrations" || target == "internal" && slices.Contains(forTests, inner)):
		return ""
	}
	return fmt.Sprintf("%s: %s may not import %s", i.File, cmp.Or(room, i.File), i.Path)
}

// Imports lists the imports of all Go files below root, tests and files for
// other systems included, in order.
func Imports(root string) ([]Import, error) {
	var all []Import
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		for _, spec := range file.Imports {
			imported, unquoteErr := strconv.Unquote(spec.Path.Value)
			if unquoteErr != nil {
				return unquoteErr
			}
			all = append(all, Import{filepath.ToSlash(rel), imported})
		}
		return err
	})
	return all, err
}
