package source

import (
	"bufio"
	"bytes"
	"path"
	"strings"
)

// Guess is what an input looks like.
type Guess struct {
	// Format is empty when nothing fits.
	Format Format
	Part   Part
	// Reason says what it was recognised by, for the operator. It holds no
	// value of the input.
	Reason string
}

// sign is what a kind of file can be known by: names that all of its records
// have.
type sign struct {
	format Format
	part   Part
	names  []string
}

// signs are tried in order; the first whose names are all there wins, so that
// the more telling stand first.
var signs = []sign{
	{Auth0, partPasswords, []string{"passwordHash", "_id"}},
	{Auth0, PartUsers, []string{"user_id", "identities"}},
	{Auth0, PartUsers, []string{"user_id", "identities[0].connection"}},
	{Auth0, PartUsers, []string{"user_id", "email_verified"}},
	{Auth0, PartUsers, []string{"Id", "Given Name", "Family Name"}},
	{Keycloak, PartUsers, []string{"username", "credentials", "requiredActions"}},
	{Keycloak, PartUsers, []string{"username", "createdTimestamp"}},
	{Keycloak, PartUsers, []string{"username", "federatedIdentities"}},
	{Keycloak, PartUsers, []string{"username", "realmRoles"}},
	{Firebase, PartUsers, []string{"localId"}},
	{Okta, PartUsers, []string{"profile", "credentials", "status"}},
	{Okta, PartUsers, []string{"profile", "status", "activated"}},
	{Cognito, PartUsers, []string{"cognito:username"}},
	{Cognito, PartUsers, []string{"Username", "Attributes"}},
	{Kratos, PartUsers, []string{"traits", "schema_id"}},
	{Kratos, PartUsers, []string{"traits", "credentials"}},
	{FusionAuth, PartUsers, []string{"encryptionScheme", "password"}},
	{FusionAuth, PartUsers, []string{"insertInstant"}},
	{FusionAuth, PartUsers, []string{"registrations", "email"}},
	{Supabase, PartUsers, []string{"encrypted_password", "email_confirmed_at"}},
	{Supabase, PartUsers, []string{"id", "raw_user_meta_data"}},
	{Supabase, partIdentities, []string{"user_id", "provider", "identity_data"}},
	{Supabase, partFactors, []string{"user_id", "factor_type", "secret"}},
	{Clerk, PartUsers, []string{"id", "primary_email_address"}},
	{Clerk, PartUsers, []string{"password_hasher", "password_digest"}},
	{Django, PartUsers, []string{"username", "password", "is_active"}},
	{Django, PartUsers, []string{"username", "date_joined"}},
	{Django, partEmails, []string{"user_id", "email", "verified", "primary"}},
	{Django, partIdentities, []string{"user_id", "provider", "uid"}},
	{WordPress, PartUsers, []string{"user_login", "user_pass"}},
	{WordPress, partUserMeta, []string{"user_id", "meta_key", "meta_value"}},
	{ASPNet, PartUsers, []string{"UserName", "PasswordHash"}},
	{ASPNet, PartUsers, []string{"NormalizedUserName"}},
	{ASPNet, partLogins, []string{"LoginProvider", "ProviderKey", "UserId"}},
	{ASPNet, partTokens, []string{"LoginProvider", "UserId", "Name", "Value"}},
	{ASPNet, partClaims, []string{"UserId", "ClaimType"}},
	{Laravel, PartUsers, []string{"email", "password", "remember_token"}},
	{Laravel, PartUsers, []string{"email", "password", "email_verified_at"}},
	{Devise, PartUsers, []string{"email", "encrypted_password"}},
	{Muster, PartUsers, []string{"userName", "profile"}},
	{Muster, PartUsers, []string{"user_name", "profile"}},
	{Muster, PartUsers, []string{"profile", "email"}},
}

// Detect finds out what the beginning of an input is, uncompressed. The name
// decides nothing, except between two things that look the same.
func Detect(head []byte, name string) Guess {
	head = bytes.TrimLeft(head, " \t\r\n")
	switch {
	case len(head) == 0:
		return Guess{Reason: "it is empty"}
	case jsonLooking(head):
		return detectJSON(head)
	case ldifLooking(head):
		return Guess{LDIF, PartUsers, "its first line is a dn or an LDIF version"}
	}
	return detectCSV(head, name)
}

func ldifLooking(head []byte) bool {
	for len(head) > 0 {
		line, rest, _ := bytes.Cut(head, []byte{'\n'})
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' {
			lower := bytes.ToLower(line[:min(len(line), 8)])
			return bytes.HasPrefix(lower, []byte("dn:")) || bytes.HasPrefix(lower, []byte("version:"))
		}
		head = rest
	}
	return false
}

// detectJSON looks at the names of the first record.
func detectJSON(head []byte) Guess {
	names, nested := firstNames(head)
	for _, n := range []string{"dataOrgs", "data_orgs", "dataOrgsv1", "data_orgsv1"} {
		if names[n] {
			return Guess{ZITADEL, PartUsers, "it is a document with " + n}
		}
	}
	if names["federatedUsers"] || names["realm"] && (names["users"] || names["clients"] || names["roles"]) {
		return Guess{Keycloak, PartUsers, "it is a realm"}
	}
	if names["encryptionScheme"] && names["users"] {
		return Guess{FusionAuth, PartUsers, "it has users and an encryptionScheme"}
	}
	if names["model"] && names["pk"] {
		return Guess{Django, fixturePart(nested), "it is a fixture of models"}
	}
	for _, wrapper := range []string{"users", "Users", "identities"} {
		if names[wrapper] && len(nested) > 0 && !names["user_id"] && !names["credentials"] {
			if g := match(nested); g.Format != "" {
				g.Reason = "the records under " + wrapper + " have " + g.Reason
				return g
			}
		}
	}
	if g := match(names); g.Format != "" {
		g.Reason = "its records have " + g.Reason
		return g
	}
	return Guess{Reason: "no format has such records"}
}

func fixturePart(fields map[string]bool) Part {
	switch {
	case fields["verified"] && fields["primary"]:
		return partEmails
	case fields["uid"] && fields["provider"]:
		return partIdentities
	}
	return PartUsers
}

func match(names map[string]bool) Guess {
	for _, s := range signs {
		all := true
		for _, n := range s.names {
			all = all && names[n]
		}
		if all {
			return Guess{s.format, s.part, strings.Join(s.names, " and ")}
		}
	}
	return Guess{}
}

// firstNames collects the names of the first object's members, as far as the
// head goes, and those of the first object that stands in a list or an object
// right in it.
func firstNames(head []byte) (names, nested map[string]bool) {
	s := jsonStream{bufio.NewReaderSize(bytes.NewReader(head), len(head)+16)}
	names, nested = map[string]bool{}, map[string]bool{}
	if c, _ := s.peek(); c == '[' {
		_ = s.expect('[')
	}
	s.collect(names, func(key string) bool {
		switch key {
		case "users", "Users", "identities", "federatedUsers":
			if c, _ := s.peek(); c == '[' {
				_ = s.expect('[')
				return s.collect(nested, nil)
			}
		case "fields":
			return s.collect(nested, nil)
		}
		return true
	})
	return names, nested
}

// collect reads an object's names; into may look at a member before it is
// passed over, and says whether to go on passing over. It returns false where
// the text ended or an inner look has begun to read.
func (s jsonStream) collect(names map[string]bool, into func(key string) bool) bool {
	if s.expect('{') != nil {
		return false
	}
	for begun := false; ; begun = true {
		more, err := s.more(begun, '}')
		if err != nil || !more {
			return false
		}
		key, err := s.key()
		if err != nil {
			return false
		}
		names[key] = true
		if into != nil && !into(key) {
			return false
		}
		if s.skip() != nil {
			return false
		}
	}
}

func detectCSV(head []byte, file string) Guess {
	line, _, _ := bytes.Cut(head, []byte{'\n'})
	c := csvReader{r: bufio.NewReader(bytes.NewReader(line)), comma: separator(line)}
	cells, err := c.next()
	if err != nil {
		return Guess{Reason: "it is neither JSON nor LDIF nor CSV"}
	}
	names := map[string]bool{}
	for _, cell := range cells {
		names[string(bytes.TrimSpace(cell))] = true
	}
	if g := match(names); g.Format != "" {
		g.Reason = "its header has " + g.Reason
		return g
	}
	// Firebase's CSV has no header. Its third column is a boolean, and the
	// newest columns come with a comma behind the last.
	n := len(cells)
	if (n == 28 || n == 29 || n == 52 || n == 53) && (string(cells[2]) == "true" || string(cells[2]) == "false") {
		return Guess{Firebase, PartUsers, "it has Firebase's columns, without a header"}
	}
	return Guess{Reason: "no format has such a header" + extension(file)}
}

func extension(file string) string {
	if e := path.Ext(file); e != "" && len(e) < 8 {
		return " (" + e + ")"
	}
	return ""
}

// partOf finds out which part of a known format an input is.
func partOf(f Format, head []byte) Part {
	head = bytes.TrimLeft(head, " \t\r\n")
	names := map[string]bool{}
	if jsonLooking(head) {
		var nested map[string]bool
		names, nested = firstNames(head)
		if f == Django && names["model"] {
			return fixturePart(nested)
		}
	} else {
		line, _, _ := bytes.Cut(head, []byte{'\n'})
		c := csvReader{r: bufio.NewReader(bytes.NewReader(line)), comma: separator(line)}
		cells, _ := c.next()
		for _, cell := range cells {
			names[string(bytes.TrimSpace(cell))] = true
		}
	}
	for _, s := range signs {
		all := s.format == f && s.part != PartUsers
		for _, n := range s.names {
			all = all && names[n]
		}
		if all {
			return s.part
		}
	}
	return PartUsers
}
