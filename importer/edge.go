package importer

import (
	"errors"
	"net/mail"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/muster-id/muster/domain"
)

// edge applies the rules that the wire's edge has, in its order and with its
// texts, to a line; a test in handlers compares them with the generated ones.
// The error is a *domain.Error that names the field. Where the generated text
// would repeat a part of the address, it ends before that.
func (p *parsed) edge() error {
	c := &p.cmd
	if !runes(c.UserName, 1, 200) {
		return violation("", "UserName", between200, "userName")
	}
	if !p.profile {
		return violation("", "Profile", required, "profile")
	}
	for _, r := range [...]struct {
		value, name, field string
		least, most        int
		reason             string
	}{
		{c.Profile.FirstName, "FirstName", "profile.firstName", 1, 200, between200},
		{c.Profile.LastName, "LastName", "profile.lastName", 1, 200, between200},
		{c.Profile.NickName, "NickName", "profile.nickName", 0, 200, most200},
		{c.Profile.DisplayName, "DisplayName", "profile.displayName", 0, 200, most200},
		{c.Profile.PreferredLanguage, "PreferredLanguage", "profile.preferredLanguage", 0, 10, "value length must be at most 10 runes"},
	} {
		if !runes(r.value, r.least, r.most) {
			return within("Profile", "Profile", r.name, r.reason, r.field)
		}
	}
	if !p.email {
		return violation("", "Email", required, "email")
	}
	if cause := badAddress(c.Email.Address); cause != nil {
		reason := "value must be a valid email address"
		if text := cause.Error(); !strings.ContainsRune(text, '"') {
			reason += " | caused by: " + text
		}
		return within("Email", "Email", "Email", reason, "email.email")
	}
	if ph := c.Phone; ph != nil {
		if !runes(ph.Number, 1, 50) {
			return within("Phone", "Phone", "Phone", "value length must be between 1 and 50 runes, inclusive", "phone.phone")
		}
		if ph.Number[0] != '+' {
			return within("Phone", "Phone", "Phone", `value does not have prefix "+"`, "phone.phone")
		}
	}
	for i := range c.IDPLinks {
		l := &c.IDPLinks[i]
		at := "[" + strconv.Itoa(i) + "]"
		switch {
		case !runes(l.ConfigID, 1, 200):
			return within("Idps"+at, "IDP", "ConfigId", between200, "idps"+at+".configId")
		case !runes(l.ExternalUserID, 1, 200):
			return within("Idps"+at, "IDP", "ExternalUserId", between200, "idps"+at+".externalUserId")
		case !runes(l.DisplayName, 0, 200):
			return within("Idps"+at, "IDP", "DisplayName", most200, "idps"+at+".displayName")
		}
	}
	return nil
}

const (
	message    = "ImportHumanUserRequest"
	required   = "value is required"
	between200 = "value length must be between 1 and 200 runes, inclusive"
	most200    = "value length must be at most 200 runes"
)

func violation(inner, name, reason, field string) *domain.Error {
	return &domain.Error{Kind: domain.KindInvalidArgument, Message: "invalid " + message + inner + "." + name + ": " + reason, Field: field}
}

// within is a violation in a message that is a field of the request.
func within(outer, inner, name, reason, field string) *domain.Error {
	e := violation("_"+inner, name, reason, field)
	e.Message = "invalid " + message + "." + outer + ": embedded message failed validation | caused by: " + e.Message
	return e
}

func runes(s string, least, most int) bool {
	if len(s) <= most {
		return len(s) >= least
	}
	n := utf8.RuneCountInString(s)
	return n >= least && n <= most
}

// badAddress says what the edge has against an e-mail address.
func badAddress(s string) error {
	if plainAddress(s) {
		return nil
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		return err
	}
	if len(a.Address) > 254 {
		return errors.New("email addresses cannot exceed 254 characters")
	}
	local, host, _ := strings.Cut(a.Address, "@")
	if len(local) > 64 {
		return errors.New("email address local phrase cannot exceed 64 characters")
	}
	return badHost(host)
}

func badHost(host string) error {
	if len(host) > 253 {
		return errors.New("hostname cannot exceed 253 characters")
	}
	for part := range strings.SplitSeq(strings.ToLower(strings.TrimSuffix(host, ".")), ".") {
		switch {
		case part == "" || len(part) > 63:
			return errors.New("hostname part must be non-empty and cannot exceed 63 characters")
		case part[0] == '-':
			return errors.New("hostname parts cannot begin with hyphens")
		case part[len(part)-1] == '-':
			return errors.New("hostname parts cannot end with hyphens")
		}
		for _, r := range part {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
				return errors.New(`hostname parts can only contain alphanumeric characters or hyphens, got "?"`)
			}
		}
	}
	return nil
}

// plainAddress recognises the addresses that nearly all lines have, so that
// those need no parser: letters, digits and a few signs on either side of an @.
func plainAddress(s string) bool {
	if len(s) > 254 {
		return false
	}
	local, host, ok := strings.Cut(s, "@")
	if !ok || local == "" || len(local) > 64 || host == "" || len(host) > 253 {
		return false
	}
	last := byte('.')
	for i := range len(local) {
		c := local[i]
		if c == '.' && last == '.' || !wordByte(c) && c != '.' && c != '+' && c != '_' && c != '-' {
			return false
		}
		last = c
	}
	if last == '.' {
		return false
	}
	last, label := '.', 0
	for i := range len(host) {
		c := host[i]
		switch {
		case c == '.':
			if last == '.' || last == '-' {
				return false
			}
			label = -1
		case c == '-':
			if last == '.' {
				return false
			}
		case !wordByte(c):
			return false
		}
		if label++; label > 63 {
			return false
		}
		last = c
	}
	return last != '.' && last != '-'
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
