package importer

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/importer/jsontext"
)

// parsed is what a line of the stream says, before any rule is applied.
type parsed struct {
	cmd domain.ImportHuman
	// profile and email are whether the line has those objects at all.
	profile, email bool
}

// parseLine reads one line: the JSON body of a single import, with userId,
// metadata, state and externalId beside it.
//
// It means what protobuf's JSON mapping means by such a body, as the single
// import reads it: names in camel case or snake case, null as absent, unknown
// names and enumeration names ignored, a field that occurs twice refused. A
// test in handlers holds the two together. Unlike there, what follows the
// object is refused: on a line of its own it can only be a lost line break.
//
// The command's strings are parts of s. The error is a *domain.Error that says
// where the line is wrong without repeating any of it.
func parseLine(s string) (parsed, error) {
	d := lineDecoder{s: s}
	var p parsed
	if err := d.human(&p); err != nil {
		return parsed{}, err
	}
	if d.space(); d.i != len(s) {
		return parsed{}, d.malformed()
	}
	return p, nil
}

// ParseLine reads one line of the stream and applies the rules of the wire's
// edge to it. The error is a *domain.Error.
func ParseLine(line string) (domain.ImportHuman, error) {
	p, err := parseLine(line)
	if err == nil {
		err = p.edge()
	}
	if err != nil {
		return domain.ImportHuman{}, err
	}
	return p.cmd, nil
}

// lineDecoder walks over a JSON text once.
type lineDecoder struct {
	s string
	i int
}

func (d *lineDecoder) malformed() error {
	return &domain.Error{Kind: domain.KindInvalidArgument, Message: "invalid JSON at byte " + strconv.Itoa(d.i+1)}
}

// wrong refuses a value of the wrong type.
func wrong(kind, path string) error {
	name := path[strings.LastIndexByte(path, '.')+1:]
	return &domain.Error{Kind: domain.KindInvalidArgument, Message: "invalid value for " + kind + " field " + name, Field: path}
}

func (d *lineDecoder) space() {
	for d.i < len(d.s) {
		switch d.s[d.i] {
		case ' ', '\t', '\n', '\r':
			d.i++
		default:
			return
		}
	}
}

func (d *lineDecoder) peek() byte {
	if d.i < len(d.s) {
		return d.s[d.i]
	}
	return 0
}

// take takes one byte of punctuation, and the blanks behind it.
func (d *lineDecoder) take(c byte) bool {
	if d.peek() != c {
		return false
	}
	d.i++
	d.space()
	return true
}

// word takes a literal, which has to end there.
func (d *lineDecoder) word(w string) bool {
	if !strings.HasPrefix(d.s[d.i:], w) {
		return false
	}
	if end := d.i + len(w); end < len(d.s) && !delimits(d.s[end]) {
		return false
	}
	d.i += len(w)
	return true
}

func delimits(c byte) bool {
	return c != '-' && c != '+' && c != '.' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
}

// object hands each member's name to read, which takes the value and says
// which field it was: a small number, or -1 for a name that it does not know.
func (d *lineDecoder) object(path string, read func(name string) (field int, err error)) error {
	d.space()
	if d.peek() != '{' {
		if d.i == len(d.s) || path == "" {
			return d.malformed()
		}
		return wrong("message", path)
	}
	d.take('{')
	if d.take('}') {
		return nil
	}
	var seen uint32
	for {
		name, err := d.text()
		if err != nil {
			return err
		}
		if d.space(); !d.take(':') {
			return d.malformed()
		}
		field, err := read(name)
		if err != nil {
			return err
		}
		if field >= 0 {
			if seen&(1<<field) != 0 {
				e := &domain.Error{Kind: domain.KindInvalidArgument, Message: "duplicate field"}
				return e.OnField(join(path, name))
			}
			seen |= 1 << field
		} else if err := d.skip(); err != nil {
			return err
		}
		d.space()
		if d.take(',') {
			continue
		}
		if d.peek() == '}' {
			d.i++
			return nil
		}
		return d.malformed()
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// list calls read before each element.
func (d *lineDecoder) list(path string, read func(path string) error) error {
	if d.null() {
		return nil
	}
	if d.peek() != '[' {
		return wrong("list", path)
	}
	d.take('[')
	if d.take(']') {
		return nil
	}
	for n := 0; ; n++ {
		if err := read(path + "[" + strconv.Itoa(n) + "]"); err != nil {
			return err
		}
		d.space()
		if d.take(',') {
			continue
		}
		if d.peek() == ']' {
			d.i++
			return nil
		}
		return d.malformed()
	}
}

func (d *lineDecoder) null() bool {
	d.space()
	return d.word("null")
}

// str reads a string field.
func (d *lineDecoder) str(path string, to *string) error {
	if d.null() {
		return nil
	}
	if d.peek() != '"' {
		return d.refuse("string", path)
	}
	s, err := d.text()
	*to = s
	return err
}

// refuse says that a value is of the wrong type, or that it is no JSON at all.
func (d *lineDecoder) refuse(kind, path string) error {
	if err := d.skip(); err != nil {
		return err
	}
	return wrong(kind, path)
}

func (d *lineDecoder) flag(path string, to *bool) error {
	switch {
	case d.null():
	case d.word("true"):
		*to = true
	case d.word("false"):
		*to = false
	default:
		return d.refuse("bool", path)
	}
	return nil
}

// enum reads a name, or a number, of an enumeration; a name that is not in it
// is 0.
func (d *lineDecoder) enum(path string, to *int32, names []string) error {
	if d.null() {
		return nil
	}
	if d.peek() == '"' {
		name, err := d.text()
		*to = 0
		for i, n := range names {
			if n == name {
				*to = int32(i) // #nosec G115 -- a handful of names
			}
		}
		return err
	}
	start := d.i
	if c := d.peek(); c != '-' && (c < '0' || c > '9') {
		return d.refuse("enum", path)
	}
	if !d.number() {
		return d.malformed()
	}
	f, err := strconv.ParseFloat(d.s[start:d.i], 64)
	if err != nil || f != math.Trunc(f) || f < math.MinInt32 || f > math.MaxInt32 {
		return wrong("enum", path)
	}
	*to = int32(f)
	return nil
}

// number takes a number.
func (d *lineDecoder) number() bool {
	n := jsontext.Number(d.s[d.i:])
	if n < 0 {
		return false
	}
	d.i += n
	return d.i == len(d.s) || delimits(d.s[d.i])
}

// text takes a string. Without escapes it is a part of the line.
func (d *lineDecoder) text() (string, error) {
	if d.peek() != '"' {
		return "", d.malformed()
	}
	start, ascii := d.i+1, true
	for k := start; k < len(d.s); k++ {
		switch c := d.s[k]; {
		case c == '"':
			s := d.s[start:k]
			if !ascii && !utf8.ValidString(s) {
				return "", domain.ErrTextInvalid
			}
			d.i = k + 1
			return s, nil
		case c == '\\':
			return d.escaped(start, k)
		case c < ' ':
			d.i = k
			return "", d.malformed()
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	d.i = len(d.s)
	return "", d.malformed()
}

// escaped finishes a string whose first escape is at d.s[at].
func (d *lineDecoder) escaped(start, at int) (string, error) {
	out := append(make([]byte, 0, 2*(at-start)+16), d.s[start:at]...)
	for d.i = at; d.i < len(d.s); {
		c := d.s[d.i]
		switch {
		case c == '"':
			d.i++
			if !utf8.Valid(out) {
				return "", domain.ErrTextInvalid
			}
			return string(out), nil
		case c < ' ':
			return "", d.malformed()
		case c != '\\':
			out = append(out, c)
			d.i++
			continue
		}
		d.i++
		e := d.peek()
		d.i++
		switch e {
		case '"', '\\', '/':
			out = append(out, e)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := d.hex()
			if ok && utf16.IsSurrogate(r) {
				// Half a pair means nothing.
				ok = strings.HasPrefix(d.s[min(d.i, len(d.s)):], `\u`)
				d.i += 2
				var low rune
				if ok {
					low, ok = d.hex()
				}
				r = utf16.DecodeRune(r, low)
				ok = ok && r != utf8.RuneError
			}
			if !ok {
				d.i = min(d.i, len(d.s))
				return "", d.malformed()
			}
			out = utf8.AppendRune(out, r)
		default:
			d.i = min(d.i, len(d.s))
			return "", d.malformed()
		}
	}
	return "", d.malformed()
}

func (d *lineDecoder) hex() (rune, bool) {
	if d.i+4 > len(d.s) {
		return 0, false
	}
	n, err := strconv.ParseUint(d.s[d.i:d.i+4], 16, 16)
	d.i += 4
	return rune(n), err == nil
}

// maxNesting is how deep a value that nobody looks at may be nested.
const maxNesting = 1000

// skip takes a value of any type, checking that it is one.
func (d *lineDecoder) skip() error { return d.skipValue(0) }

func (d *lineDecoder) skipValue(depth int) error {
	d.space()
	switch c := d.peek(); {
	case depth > maxNesting:
		return d.malformed()
	case c == '"':
		_, err := d.text()
		return err
	case c == '{' || c == '[':
		shut := c + 2
		if d.take(c); d.take(shut) {
			return nil
		}
		for {
			if c == '{' {
				if _, err := d.text(); err != nil {
					return err
				}
				if d.space(); !d.take(':') {
					return d.malformed()
				}
			}
			if err := d.skipValue(depth + 1); err != nil {
				return err
			}
			d.space()
			if d.take(',') {
				continue
			}
			if d.peek() == shut {
				d.i++
				return nil
			}
			return d.malformed()
		}
	case c == 't' && d.word("true"), c == 'f' && d.word("false"), c == 'n' && d.word("null"):
		return nil
	case (c == '-' || c >= '0' && c <= '9') && d.number():
		return nil
	}
	return d.malformed()
}

var (
	genderNames = []string{"GENDER_UNSPECIFIED", "GENDER_FEMALE", "GENDER_MALE", "GENDER_DIVERSE"}
	stateNames  = map[string]domain.State{
		"": domain.StateUnspecified, "active": domain.StateActive, "inactive": domain.StateInactive, "locked": domain.StateLocked,
		"USER_STATE_UNSPECIFIED": domain.StateUnspecified, "USER_STATE_ACTIVE": domain.StateActive,
		"USER_STATE_INACTIVE": domain.StateInactive, "USER_STATE_LOCKED": domain.StateLocked, "USER_STATE_INITIAL": domain.StateInitial,
	}
)

func (d *lineDecoder) human(p *parsed) error {
	c := &p.cmd
	return d.object("", func(name string) (int, error) {
		switch name {
		case "userName", "user_name":
			return 0, d.str("userName", &c.UserName)
		case "profile":
			if d.null() {
				return 1, nil
			}
			p.profile = true
			return 1, d.profile(&c.Profile)
		case "email":
			if d.null() {
				return 2, nil
			}
			p.email = true
			return 2, d.object("email", func(name string) (int, error) {
				switch name {
				case "email":
					return 0, d.str("email.email", &c.Email.Address)
				case "isEmailVerified", "is_email_verified":
					return 1, d.flag("email.isEmailVerified", &c.Email.Verified)
				}
				return -1, nil
			})
		case "phone":
			if d.null() {
				return 3, nil
			}
			c.Phone = &domain.Phone{}
			return 3, d.object("phone", func(name string) (int, error) {
				switch name {
				case "phone":
					return 0, d.str("phone.phone", &c.Phone.Number)
				case "isPhoneVerified", "is_phone_verified":
					return 1, d.flag("phone.isPhoneVerified", &c.Phone.Verified)
				}
				return -1, nil
			})
		case "password":
			return 4, d.str("password", &c.Password)
		case "hashedPassword", "hashed_password":
			if d.null() {
				return 5, nil
			}
			return 5, d.object("hashedPassword", func(name string) (int, error) {
				if name == "value" {
					return 0, d.str("hashedPassword.value", &c.HashedPassword)
				}
				return -1, nil
			})
		case "passwordChangeRequired", "password_change_required":
			return 6, d.flag("passwordChangeRequired", &c.ChangeRequired)
		case "requestPasswordlessRegistration", "request_passwordless_registration":
			return 7, d.flag("requestPasswordlessRegistration", &c.RequestPasskey)
		case "otpCode", "otp_code":
			return 8, d.str("otpCode", &c.TOTPSecret)
		case "idps":
			return 9, d.list("idps", func(path string) error {
				var l domain.IDPLink
				err := d.object(path, func(name string) (int, error) {
					switch name {
					case "configId", "config_id":
						return 0, d.str(path+".configId", &l.ConfigID)
					case "externalUserId", "external_user_id":
						return 1, d.str(path+".externalUserId", &l.ExternalUserID)
					case "displayName", "display_name":
						return 2, d.str(path+".displayName", &l.DisplayName)
					}
					return -1, nil
				})
				c.IDPLinks = append(c.IDPLinks, l)
				return err
			})
		case "userId", "user_id":
			return 10, d.str("userId", &c.UserID)
		case "externalId", "external_id":
			return 11, d.str("externalId", &c.ExternalID)
		case "state":
			return 12, d.state(&c.State)
		case "metadata":
			return 13, d.list("metadata", func(path string) error {
				m, err := d.metadata(path)
				c.Metadata = append(c.Metadata, m)
				return err
			})
		}
		return -1, nil
	})
}

func (d *lineDecoder) profile(p *domain.Profile) error {
	return d.object("profile", func(name string) (int, error) {
		switch name {
		case "firstName", "first_name":
			return 0, d.str("profile.firstName", &p.FirstName)
		case "lastName", "last_name":
			return 1, d.str("profile.lastName", &p.LastName)
		case "nickName", "nick_name":
			return 2, d.str("profile.nickName", &p.NickName)
		case "displayName", "display_name":
			return 3, d.str("profile.displayName", &p.DisplayName)
		case "preferredLanguage", "preferred_language":
			return 4, d.str("profile.preferredLanguage", &p.PreferredLanguage)
		case "gender":
			err := d.enum("profile.gender", (*int32)(&p.Gender), genderNames)
			if p.Gender < domain.GenderUnspecified || p.Gender > domain.GenderDiverse {
				p.Gender = domain.GenderUnspecified
			}
			return 5, err
		}
		return -1, nil
	})
}

// state takes our own words, or the wire's enumeration by name or number.
func (d *lineDecoder) state(to *domain.State) error {
	if d.null() {
		return nil
	}
	if d.peek() != '"' {
		return d.enum("state", (*int32)(to), nil)
	}
	name, err := d.text()
	if err != nil {
		return err
	}
	s, ok := stateNames[name]
	if !ok {
		return domain.ErrStateInvalid
	}
	*to = s
	return nil
}

func (d *lineDecoder) metadata(path string) (domain.Metadata, error) {
	var m domain.Metadata
	err := d.object(path, func(name string) (int, error) {
		switch name {
		case "key":
			return 0, d.str(path+".key", &m.Key)
		case "value":
			var text string
			if err := d.str(path+".value", &text); err != nil {
				return 1, err
			}
			b, err := decodeBase64(text)
			if err != nil {
				return 1, wrong("bytes", path+".value")
			}
			m.Value = b
			return 1, nil
		}
		return -1, nil
	})
	return m, err
}

// decodeBase64 takes either alphabet, padded or not, as protobuf's JSON does.
func decodeBase64(s string) ([]byte, error) {
	enc := base64.StdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.URLEncoding
	}
	if len(s)%4 != 0 {
		enc = enc.WithPadding(base64.NoPadding)
	}
	return enc.DecodeString(s)
}
