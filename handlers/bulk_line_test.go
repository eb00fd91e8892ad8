package handlers_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protojson"
	"pgregory.net/rapid"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/importer"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
)

// both reads a body as the single import does and as the stream does, and says
// in what they differ.
func both(body string) string {
	var m managementv1.ImportHumanUserRequest
	single := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(body), &m)
	stage := "decoding"
	if single == nil {
		single, stage = m.Validate(), "validating"
	}
	got, bulk := importer.ParseLine(body)
	if (single == nil) != (bulk == nil) {
		return fmt.Sprintf("%s: the single import says %v, the stream %v", stage, single, bulk)
	}
	if bulk == nil {
		return cmp.Diff(handlers.ImportCommand(&m), got, cmpopts.EquateEmpty())
	}
	var e *domain.Error
	if !errors.As(bulk, &e) || e.Kind != domain.KindInvalidArgument {
		return fmt.Sprintf("the error is a %T", bulk)
	}
	if stage == "validating" && (!strings.HasPrefix(single.Error(), bulk.Error()) || e.Field == "" || !strings.Contains(single.Error()[len(bulk.Error()):], `"`) && single.Error() != bulk.Error()) {
		return fmt.Sprintf("the single import says %q, the stream %q on %q", single, bulk, e.Field)
	}
	return ""
}

var (
	good = []string{
		`{"userName":"a","profile":{"firstName":"b","lastName":"c"},"email":{"email":"a@b"}}`,
		` { "user_name" : "a" , "profile" : { "first_name" : "b" , "last_name" : "ü😀", "gender" : 2, "nickName":null } , "email" : { "email" : "a@b.c", "is_email_verified" : true } } ` + "\t",
	}
	// bodies of the contract's tables, and what is easy to get wrong.
	bodies = append([]string{
		`{}`, ``, `[]`, `null`, `{`, `{"userName":}`, `{"userName":1}`, `{"userName":"a"`, `{"userName":"a",}`, `{"userName":"a" "b":1}`, `{,}`,
		`{"userName":"a","userName":"b"}`, `{"userName":"a","user_name":"b"}`, `{"userName":null,"userName":"b"}`, `{"x":1,"x":2}`,
		`{"profile":{}}`, `{"userName":"a","profile":[]}`, `{"userName":"a","profile":"x"}`, `{"idps":{}}`, `{"idps":[null]}`, `{"idps":[1]}`, `{"idps":[{}`,
		`{"userName":"\u00e9\ud83d\ude00\n\"\\\/\b\f\r\t"}`, `{"userName":"\ud800"}`, `{"userName":"\ud800\u0041"}`, `{"userName":"\udc00"}`, `{"userName":"\x"}`, `{"userName":"\u12"}`,
		"{\"userName\":\"a\nb\"}", "{\"userName\":\"\xff\"}", "{\"userName\":\"a\\n\xff\"}", "{\"\xff\":1}", "{\"userName\":\"a\x00\"}",
		`{"unknown":{"deep":[1,-2.5e+3,true,false,null,"x",{"y":[]}]}}`, `{"unknown":[1,]}`, `{"unknown":{"a"}}`, `{"unknown":tru}`, `{"unknown":truex}`, `{"unknown":01}`, `{"unknown":-}`, `{"unknown":1.}`, `{"unknown":.5}`, `{"unknown":+1}`, `{"unknown":NaN}`, `{"unknown":'x'}`,
		`{"\u0075serName":"a"}`, `{"passwordChangeRequired":"true"}`, `{"passwordChangeRequired":1}`, `{"password":[]}`, `{"password":{}}`, `{"password":true}`,
		`{"hashedPassword":{"value":"x","algorithm":"bcrypt"}}`, `{"hashedPassword":"x"}`, `{"otpCode":5}`, `{"recoveryCodes":[{"raw":"x"}]}`, `{"@type":"x"}`, `{"[a.b]":1}`, `{"user-name":1}`, `{"UserName":1}`, `{"email":{"email":"a@b","email":"a@b"}}`,
	}, good...)
)

// TestLineMeansWhatTheSingleBodyMeans holds the stream's own decoder, and its
// own copy of the edge's rules, to those of the single import.
func TestLineMeansWhatTheSingleBodyMeans(t *testing.T) {
	base := `"userName":"a","profile":{"firstName":"b","lastName":"c"},"email":{"email":"a@b.c"}`
	for _, body := range bodies {
		if diff := both(body); diff != "" {
			t.Errorf("%q: %s", body, diff)
		}
		if len(body) > 2 && strings.HasPrefix(body, "{") {
			rest := strings.TrimPrefix(body, "{")
			if diff := both("{" + base + "," + rest); diff != "" {
				t.Errorf("%q after the rest: %s", body, diff)
			}
		}
	}
	long := strings.Repeat("ä", 201)
	for _, gender := range []string{`"GENDER_FEMALE"`, `"GENDER_X"`, `1`, `1.0`, `10e-1`, `1.5`, `7`, `-1`, `99999999999`, `null`, `true`, `""`, `-0`} {
		if diff := both(`{"userName":"a","profile":{"firstName":"b","lastName":"c","gender":` + gender + `},"email":{"email":"a@b.c"}}`); diff != "" {
			t.Errorf("gender %s: %s", gender, diff)
		}
	}
	for _, address := range []string{"", "a", "@", "a@", "@b", "a@b", "a@b.", "a@.b", "a@b..c", "a@-b", "a@b-", "a@b_c", "a b@c", "a..b@c", ".a@b", "a.@b", "Foo <a@b.c>", "<a@b>", "a@b, c@d",
		`"a b"@c`, "ä@b", "a@ä", "a+b_c-d@E.f-g.1", strings.Repeat("a", 65) + "@b", "a@" + strings.Repeat("b", 64), "a@" + strings.Repeat("b.", 130) + "c", " a@b", "a@b ", "a@[1.2.3.4]", "a@b\\u0000"} {
		text := strings.ReplaceAll(address, `"`, `\"`)
		if diff := both(`{"userName":"a","profile":{"firstName":"b","lastName":"c"},"email":{"email":"` + text + `"}}`); diff != "" {
			t.Errorf("%q: %s", address, diff)
		}
	}
	for _, parts := range [][3]string{
		{`"` + long + `"`, `{"firstName":"b","lastName":"c"}`, ""}, {`"a"`, `{"firstName":"` + long + `","lastName":"c"}`, ""}, {`"a"`, `{"firstName":"b"}`, ""},
		{`"a"`, `{"firstName":"b","lastName":"c","nickName":"` + long + `"}`, ""}, {`"a"`, `{"firstName":"b","lastName":"c","displayName":"` + long + `"}`, ""},
		{`"a"`, `{"firstName":"b","lastName":"c","preferredLanguage":"12345678901"}`, ""}, {`"a"`, `null`, ""},
		{`"a"`, `{"firstName":"b","lastName":"c"}`, `,"phone":{}`}, {`"a"`, `{"firstName":"b","lastName":"c"}`, `,"phone":{"phone":"1"}`}, {`"a"`, `{"firstName":"b","lastName":"c"}`, `,"phone":{"phone":"+` + strings.Repeat("1", 50) + `"}`},
		{`"a"`, `{"firstName":"b","lastName":"c"}`, `,"phone":null,"idps":[{"configId":"a","externalUserId":"b"},{"configId":"","externalUserId":"b"}]`},
		{`"a"`, `{"firstName":"b","lastName":"c"}`, `,"idps":[{"configId":"a"}]`}, {`"a"`, `{"firstName":"b","lastName":"c"}`, `,"idps":[{"configId":"a","externalUserId":"b","displayName":"` + long + `"}]`},
		{`"` + long[2:] + `"`, `{"firstName":"b","lastName":"c"}`, `,"idps":null,"idps":[]`},
	} {
		body := `{"userName":` + parts[0] + `,"profile":` + parts[1] + `,"email":{"email":"a@b"}` + parts[2] + `}`
		if diff := both(body); diff != "" {
			t.Errorf("%s: %s", body, diff)
		}
	}
	// Alone among the differences: a lost line break is not a field to ignore.
	if _, err := importer.ParseLine(good[0] + good[0]); err == nil {
		t.Error("two objects on a line are accepted")
	}
}

// TestAnyLineMeansWhatTheSingleBodyMeans does the same with bodies drawn at
// random, whole and damaged.
func TestAnyLineMeansWhatTheSingleBodyMeans(t *testing.T) {
	names := []string{"userName", "user_name", "profile", "email", "phone", "password", "hashedPassword", "hashed_password", "passwordChangeRequired",
		"requestPasswordlessRegistration", "otpCode", "idps", "firstName", "last_name", "lastName", "first_name", "gender", "isEmailVerified", "isPhoneVerified", "value", "configId", "config_id",
		"externalUserId", "displayName", "preferredLanguage", "x", ""}
	var value func(t *rapid.T, depth int) string
	object := func(t *rapid.T, depth int) string {
		var members []string
		for range rapid.IntRange(0, 6).Draw(t, "members") {
			members = append(members, fmt.Sprintf("%q:%s", rapid.SampledFrom(names).Draw(t, "name"), value(t, depth+1)))
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	value = func(t *rapid.T, depth int) string {
		kind := rapid.IntRange(0, 11).Draw(t, "kind")
		switch {
		case kind < 5 || depth > 4:
			return rapid.SampledFrom([]string{`"a"`, `"a@b.c"`, `"+41791234567"`, `"\u00fc"`, `""`, `"GENDER_MALE"`, `"` + strings.Repeat("x", 201) + `"`}).Draw(t, "text")
		case kind == 5:
			return rapid.SampledFrom([]string{"null", "true", "false", "1", "-2.5", "1e2"}).Draw(t, "literal")
		case kind == 6:
			return "[" + object(t, depth) + "]"
		}
		return object(t, depth)
	}
	rapid.Check(t, func(t *rapid.T) {
		body := object(t, 0)
		if rapid.Bool().Draw(t, "good") {
			body = `{"userName":"a","profile":{"firstName":"b","lastName":"c"},"email":{"email":"a@b.c"},` + body[1:]
			body = strings.Replace(body, ",}", "}", 1)
		}
		if n := rapid.IntRange(0, 3*len(body)).Draw(t, "damage"); n < len(body) {
			body = body[:n] + rapid.SampledFrom([]string{"", "{", `"`, ",", ":", "]", "\\", "\xff", "\x01"}).Draw(t, "with") + body[n+1:]
		}
		if diff := both(body); diff != "" {
			t.Fatalf("%q: %s", body, diff)
		}
	})
}
