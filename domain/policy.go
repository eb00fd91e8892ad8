package domain

import "github.com/muster-id/muster/domain/password"

// Policy is what an installation demands of an import.
type Policy struct {
	// MinLength is the least number of bytes of a plain password.
	MinLength int
	// Lower, Upper, Number and Symbol each demand a character of that class.
	// The classes are ASCII's; any other character is a symbol.
	Lower, Upper, Number, Symbol bool
	// PasswordIDPrefix begins the ids of password errors: "DOMAIN-" on import
	// (also when empty), "COMMA-" on v2.
	PasswordIDPrefix string
	// IDPConfigs are the ids of the providers that links may name; nil allows
	// any.
	IDPConfigs []string
	// Recognise judges an encoded password hash; nil is password.Recognise.
	// An import that knows which secrets it has may be stricter.
	Recognise func(encoded string) (password.Format, error)
	// Reserved reports whether a domain, in NormaliseDomain's form, is a
	// verified one of another organisation than the user's: no user name may
	// end in it. nil: no domain is.
	Reserved func(domain string) bool
}

func (p Policy) recognise(encoded string) (password.Format, error) {
	if p.Recognise != nil {
		return p.Recognise(encoded)
	}
	return password.Recognise(encoded)
}

// HouseFormat is the name of the algorithm that plain passwords are hashed with.
const HouseFormat = "argon2id"

// DefaultPolicy is the wire's default: eight bytes, all four classes, links to
// any provider.
func DefaultPolicy() Policy {
	return Policy{MinLength: 8, Lower: true, Upper: true, Number: true, Symbol: true, PasswordIDPrefix: "DOMAIN-"}
}

// CheckPassword returns the first rule that a plain password breaks, as an
// *Error on field "password", or nil.
func (p Policy) CheckPassword(plain string) error {
	var lower, upper, number, symbol bool
	for i := 0; i < len(plain); i++ {
		switch c := plain[i]; {
		case c >= 'a' && c <= 'z':
			lower = true
		case c >= 'A' && c <= 'Z':
			upper = true
		case c >= '0' && c <= '9':
			number = true
		default:
			symbol = true
		}
	}
	broken := func(suffix, message string) error {
		prefix := p.PasswordIDPrefix
		if prefix == "" {
			prefix = "DOMAIN-"
		}
		return NewError(KindInvalidArgument, prefix+suffix, message).OnField("password")
	}
	switch {
	case len(plain) < p.MinLength:
		return broken("HuJf6", "Password is too short")
	case p.Lower && !lower:
		return broken("co3Xw", "Password must contain lower case")
	case p.Upper && !upper:
		return broken("VoaRj", "Password must contain upper case")
	case p.Number && !number:
		return broken("ZBv4H", "Password must contain number")
	case p.Symbol && !symbol:
		return broken("ZDLwA", "Password must contain symbol")
	}
	return nil
}
