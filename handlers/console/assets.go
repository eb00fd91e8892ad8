package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strings"

	"github.com/labstack/echo/v4"
)

//go:embed assets
var assetFiles embed.FS

var assetTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

type asset struct {
	// path has the content's hash in it.
	path    string
	kind    string
	content []byte
}

// assets are the console's files, by their names without a hash.
var assets = loadAssets()

func loadAssets() map[string]asset {
	all := map[string]asset{}
	entries, err := assetFiles.ReadDir("assets")
	if err != nil {
		panic(err) // the folder is embedded
	}
	for _, e := range entries {
		content, err := assetFiles.ReadFile("assets/" + e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(content)
		ext := path.Ext(e.Name())
		all[e.Name()] = asset{base + "/assets/" + strings.TrimSuffix(e.Name(), ext) + "." + hex.EncodeToString(sum[:8]) + ext, assetTypes[ext], content}
	}
	return all
}

// serveAsset serves a file for good: another content has another address. Under
// the address of another version's file it gives this version's, for once.
func serveAsset(e echo.Context) error {
	stem, rest, _ := strings.Cut(e.Param("file"), ".")
	a, ok := assets[stem+path.Ext(rest)]
	if !ok {
		return echo.ErrNotFound
	}
	h := e.Response().Header()
	if a.path == base+"/assets/"+e.Param("file") {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		h.Del("Pragma")
		h.Del("Expires")
	}
	return e.Blob(http.StatusOK, a.kind, a.content)
}
