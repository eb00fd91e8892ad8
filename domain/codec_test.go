package domain_test

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"github.com/muster-id/muster/domain"
)

// anyValue draws a value of any type that events are made of: as wide as the
// type, empty and zero included.
func anyValue(t *rapid.T, typ reflect.Type) reflect.Value {
	v := reflect.New(typ).Elem()
	switch {
	case typ == reflect.TypeFor[time.Time]():
		if us := rapid.Int64Range(-1<<50, 1<<50).Draw(t, "time"); us != 0 {
			v.Set(reflect.ValueOf(time.UnixMicro(us).UTC()))
		}
	case typ == reflect.TypeFor[[]byte]():
		v.SetBytes(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	case typ.Kind() == reflect.String:
		v.SetString(rapid.String().Draw(t, "string"))
	case typ.Kind() == reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case typ.Kind() == reflect.Int32:
		v.SetInt(int64(rapid.Int32().Draw(t, "int32")))
	case typ.Kind() == reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "int64"))
	case typ.Kind() == reflect.Uint32:
		v.SetUint(uint64(rapid.Uint32().Draw(t, "uint32")))
	case typ.Kind() == reflect.Slice:
		for range rapid.IntRange(0, 4).Draw(t, "length") {
			v = reflect.Append(v, anyValue(t, typ.Elem()))
		}
	case typ.Kind() == reflect.Struct:
		for i := range typ.NumField() {
			v.Field(i).Set(anyValue(t, typ.Field(i).Type))
		}
	default:
		t.Fatalf("no generator for %s", typ)
	}
	return v
}

// zeroOf returns an event of each type with no field set.
func zeroOf(t testing.TB, typ string) domain.Event {
	t.Helper()
	e, err := domain.Decode(typ, 1, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// full sets every field of a value to something that is not zero.
func full(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.UnixMicro(1742515200123456).UTC()))
	case v.Kind() == reflect.String:
		v.SetString("größe")
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(3)
	case v.CanUint():
		v.SetUint(7)
	case v.Type() == reflect.TypeFor[[]byte]():
		v.SetBytes([]byte{0, 255, 1})
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		full(v.Index(0))
		full(v.Index(1))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			full(v.Field(i))
		}
	default:
		panic("no value for " + v.Type().String())
	}
}

func fullOf(t testing.TB, typ string) domain.Event {
	t.Helper()
	v := reflect.New(reflect.TypeOf(zeroOf(t, typ))).Elem()
	full(v)
	return v.Interface().(domain.Event)
}

func TestEveryEventSurvivesTheRoundTrip(t *testing.T) {
	for _, typ := range domain.EventTypes() {
		t.Run(typ, func(t *testing.T) {
			zero := zeroOf(t, typ)
			rapid.Check(t, func(t *rapid.T) {
				want := anyValue(t, reflect.TypeOf(zero)).Interface().(domain.Event)
				data, personal := domain.Encode(want)
				got, err := domain.Decode(typ, want.Schema(), data, personal)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Fatal(diff)
				}
			})
		})
	}
}

// TestSealedPartHoldsWhatIsPersonal names the fields that may be read without
// the subject's key; a new field is personal unless it is added here.
func TestSealedPartHoldsWhatIsPersonal(t *testing.T) {
	open := map[string][]string{
		domain.TypePasswordDelegated:            {"Job", "ChangeRequired"},
		domain.TypePasswordSet:                  {"ChangeRequired", "Format", "Weak"},
		domain.TypePasswordRehashed:             {"Format"},
		domain.TypeIDPLinked:                    {"ConfigID"},
		domain.TypeIDPLinkRemoved:               {"ConfigID"},
		domain.TypeInitializationCodeAdded:      {"SentCode.Lifetime", "SentCode.Issued", "SentCode.Silent"},
		domain.TypeEmailCodeAdded:               {"SentCode.Lifetime", "SentCode.Issued", "SentCode.Silent"},
		domain.TypePhoneCodeAdded:               {"SentCode.Lifetime", "SentCode.Issued", "SentCode.Silent"},
		domain.TypePasskeyRegistrationRequested: {"CodeID", "Lifetime", "Issued"},
		domain.TypePasskeyRegistrationFailed:    {"CodeID"},
		domain.TypePasskeyAdded:                 {"CodeID"},
		domain.TypePasskeyChecked:               {"SignCount"},
		domain.TypeTOTPChecked:                  {"Step"},
		domain.TypeOrganisationAdded:            {"Name"},
		domain.TypeOrganisationRenamed:          {"Name"},
		domain.TypeOrganisationDomainAdded:      {"Domain"},
		domain.TypeOrganisationDomainRemoved:    {"Domain"},
		domain.TypePersonalDataRead:             {"What"},
		domain.TypeHumanAdded:                   {"Job", "Line"},
		domain.TypeImportStarted:                {"OnConflict", "Notify"},
		domain.TypeImportSecretAdded:            {"Ref", "Line"},
		domain.TypeImportFinished:               {"Created", "Updated", "Skipped", "Failed"},
		domain.TypeImportUndone:                 {"Removed", "Kept"},
	}
	var set func(v reflect.Value, prefix string) []string
	set = func(v reflect.Value, prefix string) (names []string) {
		for i := range v.NumField() {
			f, name := v.Field(i), prefix+v.Type().Field(i).Name
			switch {
			case f.Kind() == reflect.Struct && f.Type() != reflect.TypeFor[time.Time]():
				names = append(names, set(f, name+".")...)
			case !f.IsZero():
				names = append(names, name)
			}
		}
		return names
	}
	for _, typ := range domain.EventTypes() {
		data, personal := domain.Encode(fullOf(t, typ))
		sealed, err := domain.Decode(typ, 1, data, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(open[typ], set(reflect.ValueOf(sealed), ""), cmpopts.SortSlices(strings.Compare), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: readable without the key (-want +got):\n%s", typ, diff)
		}
		if len(personal) == 0 != (reflect.DeepEqual(sealed, fullOf(t, typ))) {
			t.Errorf("%s: the sealed part is %d bytes", typ, len(personal))
		}
	}
}

// TestCodecAgreesWithProto decodes what the codec writes with the messages of
// events.proto: each field of each message must be there under its name, and
// nothing else.
func TestCodecAgreesWithProto(t *testing.T) {
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{}}
	files, err := compiler.Compile(context.Background(), "events.proto")
	if err != nil {
		t.Fatal(err)
	}
	messages, seen := files[0].Messages(), 0
	check := func(name string, b []byte, e reflect.Value) {
		d := messages.ByName(protoreflect.Name(name))
		if (d == nil) != (len(b) == 0) {
			t.Errorf("%s: %d bytes, but in the .proto: %v", name, len(b), d != nil)
		}
		if d == nil {
			return
		}
		seen++
		m := dynamicpb.NewMessage(d)
		if err := proto.Unmarshal(b, m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(m.GetUnknown()) > 0 {
			t.Errorf("%s: fields that the .proto does not have", name)
		}
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			if !m.Has(f) {
				t.Errorf("%s.%s is not written", name, f.Name())
				continue
			}
			field := e.FieldByNameFunc(func(goName string) bool {
				return strings.EqualFold(goName, strings.ReplaceAll(string(f.Name()), "_", ""))
			})
			if !field.IsValid() {
				field = e.FieldByName("Profile").FieldByNameFunc(func(goName string) bool {
					return strings.EqualFold(goName, strings.ReplaceAll(string(f.Name()), "_", ""))
				})
			}
			same := false
			switch got := m.Get(f).Interface().(type) {
			case string:
				same = got == field.String()
			case []byte:
				same = bytes.Equal(got, field.Bytes())
			case bool:
				same = got == field.Bool()
			case int32:
				same = int64(got) == field.Int()
			case uint32:
				same = uint64(got) == field.Uint()
			case int64:
				if at, ok := field.Interface().(time.Time); ok {
					same = got == at.UnixMicro()
				} else {
					same = got == field.Int()
				}
			case protoreflect.List:
				same = got.Len() == field.Len()
				if f.Message() != nil {
					entry := got.Get(0).Message()
					fs := entry.Descriptor().Fields()
					want := field.Interface().([]domain.Metadata)[0]
					same = same && entry.Get(fs.ByName("key")).String() == want.Key && bytes.Equal(entry.Get(fs.ByName("value")).Bytes(), want.Value)
				} else {
					same = same && got.Get(0).String() == field.Index(0).String()
				}
			}
			if !same {
				t.Errorf("%s.%s: the .proto reads another value", name, f.Name())
			}
		}
	}
	for _, typ := range domain.EventTypes() {
		e := fullOf(t, typ)
		data, personal := domain.Encode(e)
		check(typ, data, reflect.ValueOf(e))
		check(typ+"Sealed", personal, reflect.ValueOf(e))
	}
	if seen != messages.Len() {
		t.Errorf("%d messages in the .proto, %d of them written by an event", messages.Len(), seen)
	}
}

func TestDecodeRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, c := range []struct {
		typ    string
		schema int16
	}{{"HumanVanished", 1}, {domain.TypeHumanAdded, 2}, {domain.TypeHumanAdded, 0}} {
		_, err := domain.Decode(c.typ, c.schema, nil, nil)
		if !errors.Is(err, domain.ErrUnknownEvent) || !strings.Contains(err.Error(), c.typ) {
			t.Errorf("%s/%d: %v", c.typ, c.schema, err)
		}
	}
	for name, b := range map[string][]byte{
		"cut short":          {0x0a, 5, 'a'},
		"invalid UTF-8":      {0x0a, 1, 0xff},
		"field number zero":  {0x02, 0},
		"varint without end": {0x08, 0xff},
	} {
		if _, err := domain.Decode(domain.TypeHumanAdded, 1, nil, b); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := domain.Decode(domain.TypeUserRemoved, 1, b[:len(b):len(b)], nil); err == nil && name != "invalid UTF-8" {
			t.Errorf("%s: accepted where no field is known", name)
		}
	}
}

func TestDecodeSkipsWhatALaterProgramAdds(t *testing.T) {
	data, personal := domain.Encode(domain.PasswordSet{Hash: "$h$", Format: "bcrypt"})
	// Field 900: a fixed64, a group with a string in it, a varint; field 2
	// once more as a varint, which is not its form.
	later := []byte{0xa1, 0x38, 1, 2, 3, 4, 5, 6, 7, 8, 0xa3, 0x38, 0x0a, 1, 'x', 0xa4, 0x38, 0xa0, 0x38, 9}
	got, err := domain.Decode(domain.TypePasswordSet, 1, append(later, data...), append(personal, later...))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(domain.Event(domain.PasswordSet{Hash: "$h$", Format: "bcrypt"}), got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeKeepsNoReferenceToItsInput(t *testing.T) {
	want := fullOf(t, domain.TypeMetadataSet)
	_, personal := domain.Encode(want)
	got, err := domain.Decode(domain.TypeMetadataSet, 1, nil, personal)
	if err != nil {
		t.Fatal(err)
	}
	clear(personal)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzDecode(f *testing.F) {
	for _, typ := range domain.EventTypes() {
		data, personal := domain.Encode(fullOf(f, typ))
		f.Add(typ, data, personal)
	}
	f.Fuzz(func(t *testing.T, typ string, data, personal []byte) {
		e, err := domain.Decode(typ, 1, data, personal)
		if err != nil {
			return
		}
		// What was understood is written and read the same way again.
		data, personal = domain.Encode(e)
		again, err := domain.Decode(typ, 1, data, personal)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		new(domain.User).Apply(e)
	})
}

var added = domain.HumanAdded{
	UserName: "gigi@example.com", Email: "gigi@example.com", Phone: "+41791234567",
	Profile: domain.Profile{FirstName: "Gigi", LastName: "Giraffe", NickName: "Gi", DisplayName: "Gigi Giraffe", PreferredLanguage: "en", Gender: domain.GenderFemale},
}

func BenchmarkDecodeHumanAdded(b *testing.B) {
	data, personal := domain.Encode(added)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := domain.Decode(domain.TypeHumanAdded, 1, data, personal); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeHumanAdded(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		domain.Encode(added)
	}
}
