package domain

import (
	"regexp/syntax"
	"strings"
	"sync"

	"github.com/nyaruka/phonenumbers"
)

// phoneRegion is where a number without "+" is dialled from.
const phoneRegion = "CH"

// NormalisePhone returns a phone number in E.164. It must have a known country
// code and a length that some number could have; whether it is assigned, or
// assignable, is not asked. Errors: ErrPhoneEmpty, ErrPhoneInvalid.
func NormalisePhone(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return "", ErrPhoneEmpty
	}
	if err := text("phone.phone", s, maxPhone); err != nil {
		return "", err
	}
	if e164, ok := plainPhone(s); ok {
		return e164, nil
	}
	number, err := phonenumbers.Parse(s, phoneRegion)
	if err != nil {
		return "", ErrPhoneInvalid
	}
	return phonenumbers.Format(number, phonenumbers.E164), nil
}

// plainPhone is a hundred times faster than the library and agrees with it
// wherever it decides at all: a "+", then nothing but digits, blanks and
// hyphens; a known country code; then 2 to 15 digits at whose beginning the
// country's national prefix cannot match. Of such a number the library removes
// the blanks and hyphens, and nothing else.
func plainPhone(s string) (string, bool) {
	if s[0] != '+' {
		return "", false
	}
	var buf [19]byte
	n := 1
	buf[0] = '+'
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			if n == len(buf) {
				return "", false
			}
			buf[n] = c
			n++
		case c == ' ' || c == '-':
		default:
			return "", false
		}
	}
	if n < 2 || buf[1] == '0' {
		return "", false
	}
	// No country code begins another, none begins with a zero.
	codes, code := nationalStarts(), 0
	for i := 1; i <= 3 && i < n; i++ {
		code = code*10 + int(buf[i]-'0')
		if starts := codes[code]; starts != 0 {
			national := n - i - 1
			if national < 2 || national > 15 || starts&(1<<(buf[i+1]-'0')) == 0 { // #nosec G602 -- i < n
				return "", false
			}
			if n == len(s) {
				return s, true
			}
			return string(buf[:n]), true
		}
	}
	return "", false
}

// nationalStarts holds, by country code, the set of digits (bit d for d) that
// a national number may begin with such that no national prefix matches. Zero
// is in no set: leading zeros have rules of their own. It is computed from the
// library's own tables, so that it can never disagree with them.
var nationalStarts = sync.OnceValue(func() *[1000]uint16 {
	var starts [1000]uint16
	tables, err := phonenumbers.MetadataCollection()
	if err != nil {
		return &starts
	}
	for _, m := range tables.GetMetadata() {
		code := int(m.GetCountryCode())
		if m.GetId() != phonenumbers.GetRegionCodeForCountryCode(code) || code <= 0 || code >= len(starts) {
			continue
		}
		for d := byte(1); d <= 9; d++ {
			if !mayBeginWith(m.GetNationalPrefixForParsing(), rune('0'+d)) {
				starts[code] |= 1 << d
			}
		}
	}
	return &starts
})

// mayBeginWith reports whether a text that begins with r may match pattern at
// its beginning; true when in doubt.
func mayBeginWith(pattern string, r rune) bool {
	if pattern == "" {
		return false
	}
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return true
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return true
	}
	seen := make([]bool, len(prog.Inst))
	var reach func(pc uint32) bool
	reach = func(pc uint32) bool {
		if seen[pc] {
			return false
		}
		seen[pc] = true
		switch in := &prog.Inst[pc]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			return reach(in.Out) || reach(in.Arg)
		case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
			return reach(in.Out)
		case syntax.InstFail:
			return false
		case syntax.InstMatch:
			return true
		default:
			return in.MatchRune(r)
		}
	}
	return reach(uint32(prog.Start))
}
