package consumers

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// secret is put into every string and byte field: where it shows up in a
// document, a field has come through.
const secret = "s3cr3t-value"

func fillIn(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(secret)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(3_600_000_000_000 >> (8 * (8 - v.Type().Size())))
		if v.IsZero() {
			v.SetInt(1)
		}
	case reflect.Uint32:
		v.SetUint(7)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(secret))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fillIn(v.Index(0))
	case reflect.Struct:
		if v.Type() == timeType {
			v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)))
			return
		}
		for i := range v.NumField() {
			fillIn(v.Field(i))
		}
	}
}

// The fields that documents have, by type. A field that is new in the domain
// makes this test fail, so that somebody decides whether it may go out.
var outgoing = map[string]string{
	"EmailChanged":                 "email",
	"EmailCodeAdded":               "issued lifetime silent urlTemplate",
	"HumanAdded":                   "email externalId job line phone profile userName",
	"ImportFinished":               "created failed skipped updated",
	"ImportSecretAdded":            "line ref",
	"ImportStarted":                "notify onConflict remote",
	"ImportUndone":                 "kept removed",
	"PersonalDataRead":             "by reason what",
	"IDPLinkRemoved":               "configId externalUserId",
	"IDPLinked":                    "configId displayName externalUserId",
	"InitializationCodeAdded":      "issued lifetime silent",
	"MetadataRemoved":              "keys",
	"MetadataSet":                  "entries",
	"OrganisationAdded":            "name",
	"OrganisationDomainAdded":      "domain",
	"OrganisationDomainRemoved":    "domain",
	"OrganisationRenamed":          "name",
	"PasskeyAdded":                 "codeId name",
	"PasskeyChecked":               "signCount",
	"PasskeyRegistrationFailed":    "codeId",
	"PasskeyRegistrationRequested": "codeId issued lifetime",
	"PasswordDelegated":            "changeRequired job",
	"PasswordRehashed":             "format",
	"PasswordSet":                  "changeRequired format weak",
	"PhoneChanged":                 "phone",
	"PhoneCodeAdded":               "issued lifetime silent",
	"ProfileChanged":               "profile",
	"TOTPChecked":                  "step",
	"UsernameChanged":              "userName",
}

func TestDocumentsHoldNoCredentials(t *testing.T) {
	for _, typ := range domain.EventTypes() {
		zero, err := domain.Decode(typ, 1, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		v := reflect.New(reflect.TypeOf(zero)).Elem()
		fillIn(v)
		e := v.Interface().(domain.Event)
		var fields map[string]any
		if err := json.Unmarshal(appendFields(nil, e), &fields); err != nil {
			t.Fatalf("%s: %v", typ, err)
		}
		var keys []string
		for k := range fields {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		if diff := cmp.Diff(outgoing[typ], strings.Join(keys, " ")); diff != "" {
			t.Errorf("%s: %s", typ, diff)
		}
	}
}

func TestDocument(t *testing.T) {
	h := domain.HumanAdded{UserName: "ada \"<\x01é", Email: "ada@example.test", Profile: domain.Profile{FirstName: "Ada", DisplayName: "Ada", Gender: domain.GenderFemale}}
	data, personal := domain.Encode(h)
	e := eventstore.Event{
		Position: 7, Epoch: 1, Stream: "user1", Sequence: 1, Slice: 5, ID: ulid.MustParse("01J0000000000000000000ADA0"), Type: "HumanAdded", Schema: 1,
		Org: "org", Actor: "me", At: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Data: data, Sealed: []byte("x"), Personal: personal,
	}
	got, err := AppendDocument(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"position":7,"epoch":1,"id":"01J0000000000000000000ADA0","stream":"user1","sequence":1,"slice":5,"type":"HumanAdded","schema":1,"org":"org","actor":"me","at":"2026-01-02T03:04:05.000006Z",` +
		`"data":{"userName":"ada \"\u003c\u0001é","profile":{"firstName":"Ada","displayName":"Ada","gender":1},"email":"ada@example.test"}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	e.Personal = nil
	got, err = AppendDocument(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(got), "ada") || !strings.Contains(string(got), `"data":{},"sealed":true`) {
		t.Errorf("sealed: %s", got)
	}
	doc, err := ParseDocument(got)
	if err != nil {
		t.Fatal(err)
	}
	e.Sealed = nil
	if diff := cmp.Diff(e, doc.Event, cmp.Comparer(func(a, b []byte) bool { return string(a) == string(b) })); diff != "" {
		t.Error(diff)
	}
}

// TestADocumentOfAnUnknownEvent: what a later program wrote has its envelope
// and what is open of it as stored, no fields, and says that it is unknown.
func TestADocumentOfAnUnknownEvent(t *testing.T) {
	data, personal := domain.Encode(domain.HumanAdded{UserName: "ada", Job: "job1"})
	e := eventstore.Event{
		Position: 7, Epoch: 1, Stream: "user1", Sequence: 2, Slice: 5, ID: ulid.MustParse("01J0000000000000000000ADA0"), Type: "HumanAdded", Schema: 2,
		Org: "org", Actor: "me", At: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Data: data, Sealed: []byte("x"), Personal: personal,
	}
	const envelope = `{"position":7,"epoch":1,"id":"01J0000000000000000000ADA0","stream":"user1","sequence":2,"slice":5,"type":%q,"schema":%d,"org":"org","actor":"me","at":"2026-01-02T03:04:05.000006Z","data":{}`
	for _, c := range []struct {
		name   string
		change func(*eventstore.Event)
		marks  string
	}{
		{"a later schema, opened", func(*eventstore.Event) {}, `,"unknown":true,"sealed":true`},
		{"a later schema, sealed", func(e *eventstore.Event) { e.Personal = nil }, `,"unknown":true,"sealed":true`},
		{"a later type", func(e *eventstore.Event) { e.Type, e.Schema, e.Sealed, e.Personal = "HumanMarried", 1, nil, nil }, `,"unknown":true`},
		{"a later type, erased", func(e *eventstore.Event) { e.Type, e.Personal, e.Erased = "HumanMarried", nil, true }, `,"unknown":true,"erased":true`},
		{"a type of the system's in a user's stream", func(e *eventstore.Event) { e.Type, e.Schema = TypeEventSkipped, 1 }, `,"unknown":true,"sealed":true`},
	} {
		e := e
		c.change(&e)
		got, err := AppendDocument(nil, e)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want := fmt.Sprintf(envelope, e.Type, e.Schema) + c.marks + `,"raw":"` + base64.StdEncoding.EncodeToString(data) + `"}`
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		doc, err := ParseDocument(got)
		if err != nil || !doc.Unknown || doc.Event.Type != e.Type || doc.Event.ID != e.ID || string(doc.Event.Data) != string(data) {
			t.Errorf("%s: read as %+v, %v", c.name, doc, err)
		}
	}
	// This package's own event is no stranger, unless it is of a later schema;
	// a damaged one is no later one.
	for schema, unknown := range map[int16]bool{1: false, 2: true} {
		e.Type, e.Schema, e.Stream = TypeEventSkipped, schema, StreamPrefix+"crm"
		if got, err := AppendDocument(nil, e); err != nil || strings.Contains(string(got), "unknown") != unknown {
			t.Errorf("%s, %v", got, err)
		}
	}
	e.Schema = 1
	e.Type, e.Data = "HumanAdded", []byte{0xff}
	if got, err := AppendDocument(nil, e); err == nil {
		t.Errorf("a damaged event reads %s", got)
	}
}

func TestKeysOfFields(t *testing.T) {
	for name, want := range map[string]string{"ID": "id", "UserID": "userId", "ConfigID": "configId", "IDPLinks": "idpLinks", "URLTemplate": "urlTemplate", "DisplayName": "displayName", "X": "x"} {
		if got := camel(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestBackoffStaysWithinItsBounds(t *testing.T) {
	for _, r := range []float64{0, 0.5, 0.999999} {
		b := Exponential(100*time.Millisecond, time.Minute, func() float64 { return r })
		for failed := 1; failed < 100; failed++ {
			full := time.Minute
			if failed < 11 {
				full = min(full, 100*time.Millisecond<<(failed-1))
			}
			if d := b(failed); d < full/2 || d > full {
				t.Fatalf("after %d failures: %v, want %v to %v", failed, d, full/2, full)
			}
		}
	}
}
