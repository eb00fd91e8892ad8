package source

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/muster-id/muster/domain"
)

// plainly turns a record into what encoding/json makes of the same text.
func plainly(v value) any {
	n := v.node()
	switch n.kind {
	case null:
		return nil
	case boolean:
		return string(n.text) == "true"
	case number:
		return json.Number(n.text)
	case text:
		return string(n.text)
	case list:
		l := []any{}
		for e := range v.elements() {
			l = append(l, plainly(e))
		}
		return l
	}
	m := map[string]any{}
	for e := range v.elements() {
		m[e.key()] = plainly(e)
	}
	return m
}

// FuzzJSON holds our parser against encoding/json: the same texts are good, and
// they mean the same; and the stream finds the same end of each value.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{}`, `[]`, `[1,-0.5e+7,true,false,null,"a"]`, `{"a":{"b":[{"c":"\u00e5\ud83d\ude00\ud83d\n\"\\"}]}}`, `{"a":1,"a":2}`,
		`01`, `1.`, `-`, `[1,]`, `{"a"}`, `"\x"`, "\"\t\"", `"\ud83d\u0041"`, ` [ 1 , { "a" : "}" } ] `, `tru`, `"`, `[[[[`, `"\u12`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d doc
		err := d.parse(b)
		if bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) > maxDepth {
			return
		}
		if good := json.Valid(b); good != (err == nil) {
			t.Fatalf("%q: valid %v, but %v", b, good, err)
		}
		if err != nil {
			return
		}
		// Of bytes that are no UTF-8 encoding/json makes U+FFFD; we leave them to
		// the command's own check.
		if !utf8.Valid(b) {
			return
		}
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.UseNumber()
		var want any
		if err := dec.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(plainly(asRecord(want)), plainly(d.root())); d != "" {
			t.Fatal(d)
		}
		// In small pieces, with something behind it.
		s := jsonStream{bufio.NewReaderSize(io.MultiReader(bytes.NewReader(b), strings.NewReader(` ,x`)), 16)}
		raw, err := s.raw(nil, maxRecord)
		if err != nil || !bytes.Equal(raw, bytes.TrimSpace(b)) {
			t.Fatalf("%q: %q %v", b, raw, err)
		}
	})
}

// asRecord makes a record of what encoding/json read.
func asRecord(v any) value {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var d doc
	if err := d.parse(b); err != nil {
		panic(err)
	}
	return d.root()
}

// FuzzCSV holds our reader against encoding/csv, where that one is content.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{"a,b\n1,2\n", "\"a\"\"b\",c\r\n", "a\n\n\"x\ny\",z", "\"a\"b,c\n", "\"open", ",\n,", "a\rb\n", "\"\"\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		want := csv.NewReader(bytes.NewReader(b))
		want.FieldsPerRecord = -1
		all, err := want.ReadAll()
		// A lone carriage return is data for us; a NUL tells our reader's end
		// of input from nothing.
		if err != nil || bytes.IndexByte(b, '\r') >= 0 || bytes.IndexByte(b, 0) >= 0 {
			all = nil
		}
		c := csvReader{r: bufio.NewReaderSize(bytes.NewReader(b), 16), comma: ','}
		var got [][]string
		for {
			cells, err := c.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if errors.Is(err, errCSV) || errors.Is(err, io.ErrUnexpectedEOF) {
				if all != nil {
					t.Fatalf("%q: %v", b, err)
				}
				if errors.Is(err, io.ErrUnexpectedEOF) {
					break
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			var row []string
			for _, cell := range cells {
				row = append(row, string(cell))
			}
			got = append(got, row)
		}
		if all != nil {
			if d := cmp.Diff(all, got); d != "" {
				t.Fatal(d)
			}
		}
	})
}

// FuzzCognitoCSV writes cells as Cognito does and reads them back.
func FuzzCognitoCSV(f *testing.F) {
	f.Add("ed", `1 Main Street, Floor 2`, `back\slash`)
	f.Add(`"quoted"`, `\,`, ``)
	f.Add(`a\`, `b`, `,\\,`)
	f.Fuzz(func(t *testing.T, a, b, c string) {
		cells := []string{a, b, c}
		for _, s := range cells {
			if strings.ContainsAny(s, "\n\r\x00") {
				return
			}
		}
		escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
		in := "cognito:username,address,nickname\n" + escape.Replace(a) + "," + escape.Replace(b) + "," + escape.Replace(c) + "\n"
		rows := newCSVRows(bufio.NewReader(strings.NewReader(in)), cognito.csv)
		var d doc
		if line, err := rows.next(&d); err != nil || line != 2 {
			t.Fatal(line, err)
		}
		for i, name := range []string{"cognito:username", "address", "nickname"} {
			if got := d.root().get(name).str(); got != cells[i] {
				t.Fatalf("%q became %q", cells[i], got)
			}
		}
	})
}

// FuzzFirebaseCSV writes a line as the Firebase tools do and reads it back;
// and any bytes must do no harm.
func FuzzFirebaseCSV(f *testing.F) {
	f.Add("uid", `{"a":"b, c"}`, []byte("x,y,true"))
	f.Add("", "\"", []byte("\"\"\",\n\"\n,,true\n"))
	f.Fuzz(func(t *testing.T, id, attributes string, junk []byte) {
		rows := newCSVRows(bufio.NewReader(bytes.NewReader(junk)), firebase.csv)
		var d doc
		for {
			if _, err := rows.next(&d); err != nil {
				var bad *rowError
				if !errors.As(err, &bad) {
					break
				}
			}
		}
		if strings.ContainsAny(id, "\n\r\x00,\"") || strings.ContainsAny(attributes, "\n\r\x00") {
			return
		}
		cells := make([]string, 52)
		cells[0], cells[2], cells[27] = id, "true", `"`+strings.ReplaceAll(attributes, `"`, `""`)+`"`
		rows = newCSVRows(bufio.NewReader(strings.NewReader(strings.Join(cells, ",")+",\n")), firebase.csv)
		if _, err := rows.next(&d); err != nil {
			t.Fatal(err)
		}
		if got := d.root().get("customAttributes").str(); got != attributes || d.root().get("localId").str() != id {
			t.Fatalf("%q became %q", attributes, got)
		}
	})
}

// FuzzLDIF: any bytes do no harm, and a value comes back as it was written, in
// clear, in base64, and folded.
func FuzzLDIF(f *testing.F) {
	f.Add([]byte("dn: a\nuid: x\n\n# c\n d\nversion: 1\n"), "Jo", 3)
	f.Add([]byte(" x\n\n:\nuid:: !!!\n\na"), "Kå\nb", 1)
	f.Fuzz(func(t *testing.T, junk []byte, val string, width int) {
		l := &ldifReader{r: bufio.NewReaderSize(bytes.NewReader(junk), 16)}
		var d doc
		for n := 0; ; n++ {
			if _, err := l.next(&d); err != nil {
				var bad *rowError
				if !errors.As(err, &bad) {
					break
				}
			}
			if n > len(junk) {
				t.Fatal("more entries than bytes")
			}
		}
		enc, err := json.Marshal([]byte(val)) // base64, in quotes
		if err != nil {
			t.Fatal(err)
		}
		line := "attr:: " + strings.Trim(string(enc), `"`)
		var folded strings.Builder
		width = 1 + max(width, -width)%80
		for i, r := range []byte(line) {
			if i > 8 && i%width == 0 {
				folded.WriteString("\r\n ")
			}
			folded.WriteByte(r)
		}
		l = &ldifReader{r: bufio.NewReaderSize(strings.NewReader("dn: a\n"+folded.String()+"\nattr: second\n"), 16)}
		if _, err := l.next(&d); err != nil {
			t.Fatal(err)
		}
		if got := d.root().get("attr").at(0).str(); got != val || d.root().get("attr").at(1).str() != "second" {
			t.Fatalf("%q became %q", val, got)
		}
	})
}

// A side table is a map from keys to lists, in memory and on disk.
func TestSideTableIsAMultimap(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		table := newSideTable(Options{TempDir: dir, joinMemory: rapid.IntRange(20, 2000).Draw(t, "memory")})
		model := map[string][]string{}
		n := rapid.IntRange(0, 300).Draw(t, "rows")
		for i := range n {
			key := fmt.Sprint("k", rapid.IntRange(0, 60).Draw(t, "key"))
			val := strings.Repeat("v", rapid.IntRange(0, 60).Draw(t, "length")) + fmt.Sprint(i)
			model[key] = append(model[key], val)
			if err := table.put(key, []byte(val)); err != nil {
				t.Fatal(err)
			}
		}
		if err := table.freeze(); err != nil {
			t.Fatal(err)
		}
		looked := int64(0)
		for _, key := range append(slices.Sorted(maps.Keys(model)), "", "k", "k61", "z") {
			if rapid.Bool().Draw(t, "pass over") {
				continue
			}
			for range 2 {
				rows, err := table.get(key)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, b := range rows {
					got = append(got, string(b))
				}
				if d := cmp.Diff(model[key], got); d != "" {
					t.Fatal(key, d)
				}
			}
			looked += int64(len(model[key]))
		}
		if table.unmatched() != int64(n)-looked {
			t.Fatal(table.unmatched(), n, looked)
		}
		if err := table.close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestExportComesBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String()
		c := domain.ImportHuman{
			UserID: s.Draw(t, "id"), UserName: s.Draw(t, "name"), Password: s.Draw(t, "password"), HashedPassword: s.Draw(t, "hash"),
			Profile: domain.Profile{
				FirstName: s.Draw(t, "first"), LastName: s.Draw(t, "last"), NickName: s.Draw(t, "nick"), DisplayName: s.Draw(t, "display"),
				PreferredLanguage: s.Draw(t, "language"), Gender: domain.Gender(rapid.IntRange(0, 3).Draw(t, "gender")),
			},
			Email:          domain.Email{Address: s.Draw(t, "email"), Verified: rapid.Bool().Draw(t, "verified")},
			ChangeRequired: rapid.Bool().Draw(t, "change"), RequestPasskey: rapid.Bool().Draw(t, "passkey"),
			TOTPSecret: s.Draw(t, "totp"), ExternalID: s.Draw(t, "external"),
			State: rapid.SampledFrom([]domain.State{domain.StateUnspecified, domain.StateInactive, domain.StateLocked}).Draw(t, "state"),
		}
		if rapid.Bool().Draw(t, "has a phone") {
			c.Phone = &domain.Phone{Number: s.Draw(t, "phone"), Verified: rapid.Bool().Draw(t, "phone verified")}
		}
		for range rapid.IntRange(0, 3).Draw(t, "links") {
			c.IDPLinks = append(c.IDPLinks, domain.IDPLink{ConfigID: s.Draw(t, "config"), ExternalUserID: s.Draw(t, "user"), DisplayName: s.Draw(t, "display")})
		}
		for range rapid.IntRange(0, 3).Draw(t, "metadata") {
			c.Metadata = append(c.Metadata, domain.Metadata{Key: s.Draw(t, "key"), Value: rapid.SliceOf(rapid.Byte()).Draw(t, "value")})
		}
		line, err := AppendLine(nil, c)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(line) || bytes.Count(line, []byte("\n")) != 1 {
			t.Fatalf("%q", line)
		}
		got, err := ParseLine(line)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if d := cmp.Diff(c, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
	if _, err := AppendLine(nil, domain.ImportHuman{State: domain.StateDeleted}); err == nil {
		t.Error("a deleted user was written")
	}
}

func TestExportHoldsAllThatCanMove(t *testing.T) {
	want := domain.ImportHuman{
		UserID: "u", UserName: "ada", ExternalID: "x", HashedPassword: bcrypt, ChangeRequired: true, TOTPSecret: secret,
		Profile:  domain.Profile{FirstName: "Ada", LastName: "Lind", DisplayName: "Ada Lind", PreferredLanguage: "sv"},
		Email:    domain.Email{Address: "ada@example.test", Verified: true},
		Phone:    &domain.Phone{Number: "+46701234567", Verified: true},
		IDPLinks: []domain.IDPLink{{ConfigID: "g", ExternalUserID: "1"}},
		Metadata: []domain.Metadata{{Key: "a", Value: []byte{0, 255}}, {Key: "b", Value: []byte("x")}},
		State:    domain.StateLocked,
	}
	u := domain.NewUser("u", "org",
		domain.HumanAdded{UserName: "ada", Profile: want.Profile, Email: "ada@example.test", Phone: "+46701234567", ExternalID: "x"},
		domain.EmailVerified{}, domain.PhoneVerified{}, domain.PasswordSet{Hash: bcrypt, ChangeRequired: true},
		domain.TOTPAdded{Secret: secret}, domain.IDPLinked(want.IDPLinks[0]),
		domain.MetadataSet{Entries: []domain.Metadata{want.Metadata[1], want.Metadata[0]}}, domain.UserLocked{})
	line, err := AppendLine(nil, FromUser(u))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseLine(line)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseLineNamesTheField(t *testing.T) {
	for line, field := range map[string]string{
		`{"userName":1}`:                             "userName",
		`{"profile":[]}`:                             "profile",
		`{"profile":{"first_name":true}}`:            "profile.firstName",
		`{"email":{"isEmailVerified":"true"}}`:       "email.isEmailVerified",
		`{"phone":{"phone":{}}}`:                     "phone.phone",
		`{"hashedPassword":{"value":7}}`:             "hashedPassword.value",
		`{"idps":{}}`:                                "idps",
		`{"idps":[{"configId":"a"},{"configId":1}]}`: "idps[1].configId",
		`{"idps":[1]}`:                               "idps[0]",
		`{"metadata":[{"key":"a","value":"%"}]}`:     "metadata[0].value",
		`{"state":"gone"}`:                           "state",
		`{"state":{}}`:                               "state",
		`{"userName":"a","user_name":"b"}`:           "userName",
		`{"email":{"email":"a","email":"b"}}`:        "email.email",
		`{"passwordChangeRequired":1}`:               "passwordChangeRequired",
		`{"profile":{"gender":true}}`:                "profile.gender",
	} {
		_, err := ParseLine([]byte(line))
		var e *domain.Error
		if !errors.As(err, &e) || e.Field != field || e.Kind != domain.KindInvalidArgument {
			t.Errorf("%s: %v on %q, want %q", line, err, e.Field, field)
		}
	}
	for _, line := range []string{
		`{"userName":null,"profile":null,"email":null,"phone":null,"idps":null,"metadata":null,"state":null,"hashedPassword":null}`,
		`{"profile":{"gender":"GENDER_X"},"unknown":{"a":[1]},"unknown":2}`, `{"profile":{"gender":77}}`, `{}`,
		`{"state":"USER_STATE_INACTIVE","recoveryCodes":[]}`, `{"state":2}`,
	} {
		if _, err := ParseLine([]byte(line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}
