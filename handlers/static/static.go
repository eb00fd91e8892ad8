// Package static serves the files that pages refer to, each under an address
// that has its content's hash in it, with those that all pages share: the
// colours (theme.css) and the mark (mark.svg).
package static

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/labstack/echo/v4"
)

//go:embed shared
var shared embed.FS

// types are the kinds of files that there are.
var types = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

// Files are a set of pages' files.
type Files struct {
	base   string
	byName map[string]file // by their names without a hash
}

type file struct {
	path    string
	kind    string
	content []byte
}

// Load reads a folder of an embedded file system, and adds what is shared. The
// files' addresses are below base. It panics when the folder cannot be read.
func Load(base string, from embed.FS, folder string) Files {
	f := Files{base: base, byName: map[string]file{}}
	f.add(shared, "shared")
	f.add(from, folder)
	return f
}

func (f Files) add(from embed.FS, folder string) {
	entries, err := from.ReadDir(folder)
	if err != nil {
		panic("static: " + err.Error())
	}
	for _, e := range entries {
		content, err := fs.ReadFile(from, folder+"/"+e.Name())
		if err != nil {
			panic("static: " + err.Error())
		}
		sum := sha256.Sum256(content)
		ext := path.Ext(e.Name())
		name := strings.TrimSuffix(e.Name(), ext) + "." + hex.EncodeToString(sum[:8]) + ext
		f.byName[e.Name()] = file{path: f.base + "/" + name, kind: types[ext], content: content}
	}
}

// Path is the address of a file, by its name without a hash.
func (f Files) Path(name string) string { return f.byName[name].path }

// Mount adds the files to e.
func (f Files) Mount(e *echo.Echo) { e.GET(f.base+"/:file", f.serve) }

// serve serves a file for good: another content has another address. The
// address of another version's file, which a page of another instance may name
// while a new version is rolled out, gets this version's, for once.
func (f Files) serve(e echo.Context) error {
	stem, rest, _ := strings.Cut(e.Param("file"), ".")
	found, ok := f.byName[stem+path.Ext(rest)]
	if !ok {
		return echo.ErrNotFound
	}
	h := e.Response().Header()
	if found.path == f.base+"/"+e.Param("file") {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		h.Del("Pragma")
		h.Del("Expires")
	}
	return e.Blob(http.StatusOK, found.kind, found.content)
}
