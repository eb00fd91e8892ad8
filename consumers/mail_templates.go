package consumers

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	texttemplate "text/template"

	"golang.org/x/text/language"
)

//go:embed mail
var mailFiles embed.FS

// mailLanguages are the languages there are texts in; the first is for
// everybody else.
var mailLanguages = []string{"en", "de", "fr", "it", "es"}

// texts are one kind of mail in one language. Each is a template over values.
type texts struct {
	Subject  string `json:"subject"`
	Title    string `json:"title"`
	Greeting string `json:"greeting"`
	Text     string `json:"text"`
	Button   string `json:"button"`
	Footer   string `json:"footer"`
}

// values are what a mail's templates can use. In the two layouts the texts are
// there too, filled in: Title, Greeting, Text, Button, Footer, Subject.
type values struct {
	DisplayName, LoginName, Code, Link string
	// Hours is how long the code is good for, rounded, at least 1.
	Hours int
}

type layout struct {
	values
	texts
	Language string
}

type templates struct {
	html    *htmltemplate.Template
	text    *texttemplate.Template
	texts   map[string]map[string]texts // by language, by kind
	matcher language.Matcher
}

// loadTemplates reads the built-in files, and those of a folder in their stead.
// Every mail is rendered once, so that a broken file is found at the start.
func loadTemplates(folder string) (*templates, error) {
	read := func(name string) ([]byte, error) {
		if folder != "" {
			b, err := os.ReadFile(filepath.Join(folder, name))
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				return b, err
			}
		}
		return mailFiles.ReadFile("mail/" + name)
	}
	t := &templates{texts: map[string]map[string]texts{}}
	html, err := read("mail.html.tmpl")
	if err != nil {
		return nil, fmt.Errorf("consumers: mail templates: %w", err)
	}
	if t.html, err = htmltemplate.New("mail.html.tmpl").Parse(string(html)); err != nil {
		return nil, fmt.Errorf("consumers: mail templates: %w", err)
	}
	text, err := read("mail.txt.tmpl")
	if err != nil {
		return nil, fmt.Errorf("consumers: mail templates: %w", err)
	}
	if t.text, err = texttemplate.New("mail.txt.tmpl").Parse(string(text)); err != nil {
		return nil, fmt.Errorf("consumers: mail templates: %w", err)
	}
	var tags []language.Tag
	for _, l := range mailLanguages {
		b, err := read(l + ".json")
		if err != nil {
			return nil, fmt.Errorf("consumers: mail templates: %w", err)
		}
		var kinds map[string]texts
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&kinds); err != nil {
			return nil, fmt.Errorf("consumers: mail templates: %s.json: %w", l, err)
		}
		t.texts[l] = kinds
		tags = append(tags, language.MustParse(l))
	}
	t.matcher = language.NewMatcher(tags)
	for _, l := range mailLanguages {
		for _, kind := range []string{kindInit, kindPassword, kindEmail} {
			if t.texts[l][kind].Subject == "" {
				return nil, fmt.Errorf("consumers: mail templates: %s.json has no %q with a subject", l, kind)
			}
			if _, err := t.render(l, kind, values{DisplayName: "x", LoginName: "x", Code: "x", Link: "https://x", Hours: 1}); err != nil {
				return nil, fmt.Errorf("consumers: mail templates: %s.json, %s: %w", l, kind, err)
			}
		}
	}
	return t, nil
}

type rendered struct{ language, subject, text, html string }

func (t *templates) render(preferred, kind string, v values) (rendered, error) {
	tag, err := language.Parse(preferred)
	if err != nil {
		tag = language.Und
	}
	_, i, confidence := t.matcher.Match(tag)
	if confidence == language.No {
		i = 0
	}
	l := mailLanguages[i]
	data := layout{values: v, texts: t.texts[l][kind], Language: l}
	for _, s := range []*string{&data.Subject, &data.Title, &data.Greeting, &data.Text, &data.Button, &data.Footer} {
		if *s, err = fill(*s, v); err != nil {
			return rendered{}, err
		}
	}
	out := rendered{language: l, subject: strings.Join(strings.Fields(data.Subject), " ")}
	var b bytes.Buffer
	if err := t.text.Execute(&b, data); err != nil {
		return rendered{}, err
	}
	out.text = b.String()
	b.Reset()
	if err := t.html.Execute(&b, data); err != nil {
		return rendered{}, err
	}
	out.html = b.String()
	return out, nil
}

func fill(s string, v values) (string, error) {
	if !strings.Contains(s, "{{") {
		return s, nil
	}
	t, err := texttemplate.New("").Parse(s)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, v)
	return b.String(), err
}
