package pages

import (
	"embed"
	"encoding/json"
	"fmt"

	"golang.org/x/text/language"
)

//go:embed locales
var localeFiles embed.FS

// languages are those that there are texts in. Who understands none of them
// gets the first.
var languages = []string{"en", "de", "fr", "it", "es"}

// catalogue holds the texts of one language by their keys.
type catalogue map[string]string

var (
	catalogues = loadCatalogues()
	matcher    = newMatcher()
)

func loadCatalogues() map[string]catalogue {
	all := map[string]catalogue{}
	for _, l := range languages {
		content, err := localeFiles.ReadFile("locales/" + l + ".json")
		if err != nil {
			panic(err) // the folder is embedded
		}
		var c catalogue
		if err := json.Unmarshal(content, &c); err != nil {
			panic("pages: locales/" + l + ".json: " + err.Error())
		}
		all[l] = c
	}
	return all
}

func newMatcher() language.Matcher {
	tags := make([]language.Tag, len(languages))
	for i, l := range languages {
		tags[i] = language.MustParse(l)
	}
	return language.NewMatcher(tags)
}

// languageOf chooses by a browser's Accept-Language header.
func languageOf(accept string) string {
	tags, _, err := language.ParseAcceptLanguage(accept)
	if err != nil {
		return languages[0]
	}
	_, i, confidence := matcher.Match(tags...)
	if confidence == language.No {
		return languages[0]
	}
	return languages[i]
}

// get returns a text, with args in the places that it has for them. A key that
// there is not is a mistake in this room, which a test looks for.
func (c catalogue) get(key string, args ...any) string {
	s, ok := c[key]
	if !ok {
		panic("pages: no text for " + key)
	}
	if len(args) > 0 {
		s = fmt.Sprintf(s, args...)
	}
	return s
}
