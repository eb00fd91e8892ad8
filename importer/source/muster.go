package source

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/muster-id/muster/domain"
)

// convertMuster reads a line of our own stream: the body of a single import,
// with userId, metadata, state and externalId beside it (docs/sources/muster.md).
func convertMuster(w *row) error {
	c := w.cmd()
	c.Silent = true
	if err := readHuman(w.value, c); err != nil {
		return &rowError{err}
	}
	return nil
}

// ParseLine reads one line of our own stream into a command. It takes names in
// camel case and in snake case, null as absent, and ignores unknown names, as
// the wire does. The error is an *domain.Error that names the field.
func ParseLine(line []byte) (domain.ImportHuman, error) {
	var c domain.ImportHuman
	var d doc
	if err := d.parse(line); err != nil {
		return c, refused(err)
	}
	err := readHuman(d.root(), &c)
	return c, err
}

func badType(field, want string) *domain.Error {
	return (&domain.Error{Kind: domain.KindInvalidArgument, ID: "SOURCE-Typ01", Message: "The value is not " + want}).OnField(field)
}

var errTwice = &domain.Error{Kind: domain.KindInvalidArgument, ID: "SOURCE-Dup01", Message: "The field occurs twice"}

// field is a member of an object of the wire, with its path for errors.
type field struct {
	value
	prefix, name string
}

func (f field) path() string { return f.prefix + f.name }

func (f field) text(to *string) error {
	switch f.kind() {
	case null:
	case text:
		*to = f.str()
	default:
		return badType(f.path(), "a string")
	}
	return nil
}

func (f field) bool(to *bool) error {
	switch f.kind() {
	case null:
	case boolean:
		*to = f.flag()
	default:
		return badType(f.path(), "true or false")
	}
	return nil
}

// enum takes a name, or the number, of one of the wire's enumerations. A name
// or number that is not in it is 0.
func (f field) enum(to *int32, names ...string) error {
	switch f.kind() {
	case null:
	case number:
		n, ok := f.int()
		if !ok || n != int64(int32(n)) {
			return badType(f.path(), "a value of the enumeration")
		}
		*to = int32(n)
	case text:
		s := f.str()
		*to = 0
		for i, name := range names {
			if s == name {
				*to = int32(i)
			}
		}
	default:
		return badType(f.path(), "a value of the enumeration")
	}
	return nil
}

// fields hands each member of an object to read, under its camel case name;
// read says whether it knows the name. A name that occurs twice, in whichever
// spelling, is an error, as on the wire.
func fields(v value, prefix string, read func(f field) (known bool, err error)) error {
	switch v.kind() {
	case null:
		return nil
	case object:
	default:
		return badType(strings.TrimSuffix(prefix, "."), "an object")
	}
	var seen [32]string
	n := 0
	for m := range v.elements() {
		f := field{m, prefix, camel(m.key())}
		known, err := read(f)
		if err != nil {
			return err
		}
		if !known {
			continue
		}
		if m.kind() == null {
			continue
		}
		for _, s := range seen[:n] {
			if s == f.name {
				return errTwice.OnField(f.path())
			}
		}
		if n < len(seen) {
			seen[n] = f.name
			n++
		}
	}
	return nil
}

func camel(s string) string {
	if strings.IndexByte(s, '_') < 0 {
		return s
	}
	var b strings.Builder
	up := false
	for i := range len(s) {
		c := s[i]
		if c == '_' {
			up = true
			continue
		}
		if up && 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		up = false
		b.WriteByte(c)
	}
	return b.String()
}

// each calls read with each element of a list.
func each(f field, read func(v value, prefix string) error) error {
	switch f.kind() {
	case null:
		return nil
	case list:
	default:
		return badType(f.path(), "a list")
	}
	i := 0
	for e := range f.elements() {
		if err := read(e, f.path()+"["+strconv.Itoa(i)+"]."); err != nil {
			return err
		}
		i++
	}
	return nil
}

// readHuman reads the body of an import.
func readHuman(v value, c *domain.ImportHuman) error {
	if v.kind() != object {
		return badType("", "an object")
	}
	return fields(v, "", func(f field) (bool, error) {
		switch f.name {
		case "userName":
			return true, f.text(&c.UserName)
		case "profile":
			return true, readProfile(f, &c.Profile)
		case "email":
			return true, fields(f.value, "email.", func(f field) (bool, error) {
				switch f.name {
				case "email":
					return true, f.text(&c.Email.Address)
				case "isEmailVerified":
					return true, f.bool(&c.Email.Verified)
				}
				return false, nil
			})
		case "phone":
			if f.kind() == null {
				return true, nil
			}
			c.Phone = &domain.Phone{}
			return true, fields(f.value, "phone.", func(f field) (bool, error) {
				switch f.name {
				case "phone":
					return true, f.text(&c.Phone.Number)
				case "isPhoneVerified":
					return true, f.bool(&c.Phone.Verified)
				}
				return false, nil
			})
		case "password":
			return true, f.text(&c.Password)
		case "hashedPassword":
			return true, fields(f.value, "hashedPassword.", func(f field) (bool, error) {
				switch f.name {
				case "value":
					return true, f.text(&c.HashedPassword)
				case "algorithm":
					// The value says it itself; old documents carry the name beside it.
					f.use()
					return true, nil
				}
				return false, nil
			})
		case "passwordChangeRequired":
			return true, f.bool(&c.ChangeRequired)
		case "requestPasswordlessRegistration":
			return true, f.bool(&c.RequestPasskey)
		case "otpCode":
			return true, f.text(&c.TOTPSecret)
		case "idps":
			return true, each(f, func(v value, prefix string) error {
				var l domain.IDPLink
				err := fields(v, prefix, func(f field) (bool, error) {
					switch f.name {
					case "configId":
						return true, f.text(&l.ConfigID)
					case "externalUserId":
						return true, f.text(&l.ExternalUserID)
					case "displayName":
						return true, f.text(&l.DisplayName)
					}
					return false, nil
				})
				c.IDPLinks = append(c.IDPLinks, l)
				return err
			})
		case "userId":
			return true, f.text(&c.UserID)
		case "externalId":
			return true, f.text(&c.ExternalID)
		case "state":
			return true, f.state(&c.State)
		case "metadata":
			return true, each(f, func(v value, prefix string) error {
				m, err := readMetadata(v, prefix)
				c.Metadata = append(c.Metadata, m)
				return err
			})
		}
		return false, nil
	})
}

func readProfile(f field, p *domain.Profile) error {
	return fields(f.value, "profile.", func(f field) (bool, error) {
		switch f.name {
		case "firstName":
			return true, f.text(&p.FirstName)
		case "lastName":
			return true, f.text(&p.LastName)
		case "nickName":
			return true, f.text(&p.NickName)
		case "displayName":
			return true, f.text(&p.DisplayName)
		case "preferredLanguage":
			return true, f.text(&p.PreferredLanguage)
		case "gender":
			return true, f.enum((*int32)(&p.Gender), genders[:]...)
		}
		return false, nil
	})
}

var genders = [...]string{"GENDER_UNSPECIFIED", "GENDER_FEMALE", "GENDER_MALE", "GENDER_DIVERSE"}

var states = [...]string{
	"USER_STATE_UNSPECIFIED", "USER_STATE_ACTIVE", "USER_STATE_INACTIVE", "USER_STATE_DELETED",
	"USER_STATE_LOCKED", "USER_STATE_SUSPEND", "USER_STATE_INITIAL",
}

// state takes our own words, and the wire's enumeration.
func (f field) state(to *domain.State) error {
	if f.kind() == text {
		switch s := string(f.node().text); s {
		case "active", "inactive", "locked":
			f.use()
			*to = map[string]domain.State{
				"active": domain.StateActive, "inactive": domain.StateInactive, "locked": domain.StateLocked,
			}[s]
			return nil
		default:
			var n int32
			if err := f.enum(&n, states[:]...); err != nil || n == 0 && s != states[0] && s != "" {
				return badType(f.path(), "active, inactive or locked")
			}
			*to = domain.State(n)
			return nil
		}
	}
	return f.enum((*int32)(to), states[:]...)
}

func readMetadata(v value, prefix string) (domain.Metadata, error) {
	var m domain.Metadata
	err := fields(v, prefix, func(f field) (bool, error) {
		switch f.name {
		case "key":
			return true, f.text(&m.Key)
		case "value":
			var s string
			if err := f.text(&s); err != nil {
				return true, err
			}
			b, ok := anyBase64(s)
			if !ok {
				return true, badType(f.path(), "base64")
			}
			m.Value = b
			return true, nil
		}
		return false, nil
	})
	return m, err
}

// anyBase64 decodes base64 in either alphabet, padded or not, as protobuf's
// JSON does.
func anyBase64(s string) ([]byte, bool) {
	s = strings.TrimRight(s, "=")
	enc := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.RawURLEncoding
	}
	b, err := enc.DecodeString(s)
	return b, err == nil
}

// stateName is the word that our own stream has for a state.
func stateName(s domain.State) (string, error) {
	switch s {
	case domain.StateUnspecified, domain.StateActive, domain.StateInitial:
		return "", nil
	case domain.StateInactive:
		return "inactive", nil
	case domain.StateLocked:
		return "locked", nil
	}
	return "", fmt.Errorf("state %d cannot be imported", s)
}
