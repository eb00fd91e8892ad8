package domain

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// MaxDomains is how many domains an organisation may have.
const MaxDomains = 100

// maxDomain bounds what is looked at as a domain, in bytes, before it is in its
// final form: a label in Unicode may take more than it does in ASCII.
const maxDomain = 1000

// maxDomainName is the longest that a domain's final form can be, in bytes.
const maxDomainName = 253

// domainNames is what a domain is judged by: IDNA 2008 as UTS 46 maps it for
// lookups, labels of letters, digits and hyphens, 63 bytes each, 253 in all.
var domainNames = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// NormaliseDomain brings a domain into the one form in which domains are
// compared: ASCII ("xn--" for other letters), lower case, without the final dot
// of the root. One label is enough. ErrDomainInvalid.
func NormaliseDomain(s string) (string, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxDomain || !utf8.ValidString(s) {
		return "", ErrDomainInvalid
	}
	name, err := domainNames.ToASCII(s)
	name = strings.TrimSuffix(name, ".")
	if err != nil || name == "" || len(name) > maxDomainName || strings.HasSuffix(name, ".") {
		return "", ErrDomainInvalid
	}
	return name, nil
}

// DomainClaim returns the claim of a domain in NormaliseDomain's form.
//
//nolint:revive // a domain's claim, as LoginNameClaim is a login name's
func DomainClaim(name string) Claim { return Claim{Kind: ClaimDomain, Value: name} }

// checkReserved refuses a user name in a domain of another organisation's. What
// follows the last @ counts, and nothing else; what is no domain is nobody's.
func (p Policy) checkReserved(userName string) error {
	if p.Reserved == nil {
		return nil
	}
	at := strings.LastIndexByte(userName, '@')
	if at < 0 {
		return nil
	}
	if name, err := NormaliseDomain(userName[at+1:]); err == nil && p.Reserved(name) {
		return ErrDomainReserved
	}
	return nil
}

// The failures of domains.
var (
	// ErrDomainReserved is the wire's.
	ErrDomainReserved = NewError(KindInvalidArgument, "COMMAND-SFd21", "Domain is already reserved and cannot be used").OnField("userName")
	ErrDomainInvalid  = NewError(KindInvalidArgument, "MUSTER-domain", "Domain must be 1 to 253 letters, digits, hyphens and dots").OnField("domain")
	ErrDomainTaken    = NewError(KindAlreadyExists, "MUSTER-domaintaken", "Domain belongs to another organisation").OnField("domain")
	ErrDomainMissing  = NewError(KindNotFound, "MUSTER-nodomain", "Organisation has no such domain").OnField("domain")
	ErrDomainsMany    = NewError(KindFailedPrecondition, "MUSTER-domainmany", "Organisation has as many domains as it may").OnField("domain")
)
