package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

var update = flag.Bool("update", false, "write the golden files anew")

// now is the moment of all tests: 2024-06-01.
var now = time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC).Unix()

// firebaseSecret has the parameters of the invented project in testdata.
func firebaseSecret() password.Secrets {
	return password.Secrets{"job": {Firebase: &password.Firebase{
		SignerKey:     password.Key(strings.Repeat("synthetic-signer", 4)),
		SaltSeparator: password.Key("\x07"), Rounds: 8, MemCost: 14,
	}}}
}

// goldens are the sources in testdata: a folder each, with what comes out of it
// beside them in golden.json.
var goldens = []struct {
	folder string
	format Format
	opts   Options
}{
	{folder: "muster", format: Muster},
	{folder: "zitadel", format: ZITADEL},
	{folder: "auth0", format: Auth0, opts: Options{Map: Mapping{IDPs: map[string]string{"google-oauth2": "idp-google", "acme-saml": "idp-acme"}}}},
	{folder: "auth0-csv", format: Auth0},
	{folder: "keycloak", format: Keycloak, opts: Options{Map: Mapping{Metadata: map[string]string{"groups": "groups"}}}},
	{folder: "firebase", format: Firebase, opts: Options{Secrets: firebaseSecret(), SecretRef: "job", PlaceholderDomain: "nobody.test"}},
	{folder: "firebase-csv", format: Firebase, opts: Options{Secrets: firebaseSecret(), SecretRef: "job"}},
	{folder: "okta", format: Okta},
	{folder: "cognito", format: Cognito},
	{folder: "cognito-list", format: Cognito},
	{folder: "fusionauth", format: FusionAuth},
	{folder: "kratos", format: Kratos, opts: Options{Map: Mapping{Fields: map[string]string{"nickName": "traits.tier"}}}},
	{folder: "supabase", format: Supabase},
	{folder: "supabase-csv", format: Supabase},
	{folder: "clerk", format: Clerk},
	{folder: "django", format: Django},
	{folder: "django-fixture", format: Django, opts: Options{AssumeVerified: true, IDs: IDsKeep}},
	{folder: "wordpress", format: WordPress, opts: Options{AssumeVerified: true}},
	{folder: "aspnet", format: ASPNet},
	{folder: "ldif", format: LDIF, opts: Options{PhoneRegion: "SE"}},
	{folder: "devise", format: Devise, opts: Options{
		Secrets:   password.Secrets{"job": {Pepper: &password.Pepper{Key: password.Key("pep-1"), How: password.PepperSuffix}}},
		SecretRef: "job",
	}},
	{folder: "laravel", format: Laravel},
}

// golden is what comes out of a source, in a form that people can read.
type golden struct {
	Why      []string
	Records  []goldenRecord
	Losses   Losses
	Forecast Forecast
}

type goldenRecord struct {
	Row      int64
	Input    string
	Line     int64
	Org      string            `json:",omitempty"`
	Command  json.RawMessage   `json:",omitempty"`
	Skipped  string            `json:",omitempty"`
	Warnings map[string]string `json:",omitempty"`
	Err      string            `json:",omitempty"`
	Field    string            `json:",omitempty"`
}

// read reads a whole source.
func read(t testing.TB, inputs []Input, opts Options) (rs []Record, why []string, l Losses) {
	t.Helper()
	opts.Now = now
	r, why, err := Open(inputs, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	for {
		rec, err := r.Next(context.Background())
		if err == io.EOF {
			return rs, why, r.Losses()
		}
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, rec)
	}
}

// folder opens all of a folder's inputs, in order of their names.
func folder(t testing.TB, name string) (inputs []Input) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", name, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if filepath.Base(f) == "golden.json" {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, Input{Name: filepath.Base(f), R: bytes.NewReader(b)})
	}
	return inputs
}

// one is a source in one string.
func one(s string) []Input { return []Input{{Name: "in", R: strings.NewReader(s)}} }

func TestGolden(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.folder, func(t *testing.T) {
			rs, why, losses := read(t, folder(t, g.folder), g.opts)
			got := golden{Why: why, Losses: losses}
			for _, r := range rs {
				gr := goldenRecord{Row: r.Row, Input: r.Input, Line: r.Line, Org: r.Org, Skipped: r.Skipped}
				for _, w := range r.Warnings {
					if gr.Warnings == nil {
						gr.Warnings = map[string]string{}
					}
					gr.Warnings[w.Field] += w.Text
				}
				var e *domain.Error
				switch {
				case errors.As(r.Err, &e):
					gr.Err, gr.Field = e.Error(), e.Field
				case r.Skipped == "":
					got.Forecast.Add(r.Command)
					line, err := AppendLine(nil, r.Command)
					if err != nil {
						t.Fatal(err)
					}
					gr.Command = line
				}
				got.Records = append(got.Records, gr)
			}
			if len(rs) == 0 {
				t.Fatal("no records")
			}
			b, err := json.MarshalIndent(got, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", g.folder, "golden.json")
			if *update {
				if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(b)+"\n", "\n")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestGoldenFormatsAreRecognised(t *testing.T) {
	for _, g := range goldens {
		for _, in := range folder(t, g.folder) {
			b, err := io.ReadAll(in.R)
			if err != nil {
				t.Fatal(err)
			}
			if got := Detect(b, in.Name); got.Format != g.format {
				t.Errorf("%s/%s: %+v", g.folder, in.Name, got)
			}
		}
	}
}
