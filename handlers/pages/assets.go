package pages

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

//go:embed assets
var assetFiles embed.FS

// assetTypes are the kinds of files that assets holds.
var assetTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

type asset struct {
	// path is below the pages' base: the file's name with its hash in it.
	path    string
	kind    string
	content []byte
}

// assets are the files that pages refer to, by their names without a hash.
var assets = loadAssets()

func loadAssets() map[string]asset {
	files, err := fs.Sub(assetFiles, "assets")
	if err != nil {
		panic(err) // the folder is embedded
	}
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		panic(err)
	}
	all := map[string]asset{}
	for _, e := range entries {
		content, err := fs.ReadFile(files, e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(content)
		ext := path.Ext(e.Name())
		all[e.Name()] = asset{
			path:    "/assets/" + strings.TrimSuffix(e.Name(), ext) + "." + hex.EncodeToString(sum[:8]) + ext,
			kind:    assetTypes[ext],
			content: content,
		}
	}
	return all
}

// serveAsset serves a file for good: another content has another address. The
// address of another version's file, which a page of another instance may name
// while a new version is rolled out, gets this version's, for once.
func serveAsset(e echo.Context) error {
	stem, rest, _ := strings.Cut(e.Param("file"), ".")
	a, ok := assets[stem+path.Ext(rest)]
	if !ok {
		return echo.ErrNotFound
	}
	h := e.Response().Header()
	if a.path == "/assets/"+e.Param("file") {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		h.Del("Pragma")
		h.Del("Expires")
	}
	return e.Blob(http.StatusOK, a.kind, a.content)
}
