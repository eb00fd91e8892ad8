package source

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/nyaruka/phonenumbers"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

// Mapping is what an operator says about names: `--map` options.
type Mapping struct {
	// IDPs has the provider's name at the source and the configuration id
	// here. A provider that is missing keeps its own name as the id.
	IDPs map[string]string
	// Fields has a field of ours and the dotted path of the source's field
	// that shall fill it, instead of what the source's table says. The fields
	// are those of [FieldNames].
	Fields map[string]string
	// Metadata has the dotted path of a source's field and the metadata key
	// that shall carry it.
	Metadata map[string]string
}

// FieldNames are the fields that a mapping can fill.
var FieldNames = []string{
	"userId", "userName", "firstName", "lastName", "fullName", "nickName", "displayName", "preferredLanguage",
	"gender", "email", "emailVerified", "phone", "phoneVerified", "externalId",
}

// ParseMapping reads the options of the command line:
//
//	idp:SOURCE=CONFIGID           idp:google-oauth2=2648…
//	field:OURS=PATH               field:phone=attributes.mobile
//	metadata:PATH=KEY             metadata:attributes.dept=department
func ParseMapping(args []string) (Mapping, error) {
	m := Mapping{map[string]string{}, map[string]string{}, map[string]string{}}
	for _, arg := range args {
		what, rest, _ := strings.Cut(arg, ":")
		// A source's name may have "=" in it, our side never does.
		i := strings.LastIndexByte(rest, '=')
		if i <= 0 || i == len(rest)-1 {
			return Mapping{}, fmt.Errorf("map %q: want idp:SOURCE=CONFIGID, field:OURS=PATH or metadata:PATH=KEY", arg)
		}
		from, to := rest[:i], rest[i+1:]
		switch what {
		case "idp":
			m.IDPs[from] = to
		case "field":
			from, to, _ = strings.Cut(rest, "=")
			if !slices.Contains(FieldNames, from) {
				return Mapping{}, fmt.Errorf("map %q: no such field; there are %s", arg, strings.Join(FieldNames, ", "))
			}
			m.Fields[from] = to
		case "metadata":
			m.Metadata[from] = to
		default:
			return Mapping{}, fmt.Errorf("map %q: want idp:, field: or metadata", arg)
		}
	}
	return m, nil
}

// row is one user of a source on the way to a command. A source's convert
// function fills it; what all sources have in common happens in finish.
type row struct {
	value
	r   *reader
	rec *Record
	// full is a name that is not parted into first and last.
	full string
	// verified is nil when the source says nothing about the address.
	verified *bool
	phone    string
	// phoneVerified goes with phone.
	phoneVerified bool
	id            string
}

func (w *row) cmd() *domain.ImportHuman { return &w.rec.Command }

func (w *row) warn(field, text string) {
	w.rec.Warnings = append(w.rec.Warnings, domain.Warning{Field: field, Text: text})
}

// skip leaves the row out.
func (w *row) skip(reason string) error {
	w.rec.Skipped = reason
	return nil
}

// mapped returns what the operator's mapping says a field is to be filled from.
func (w *row) mapped(field string) (value, bool) {
	path, ok := w.r.opts.Map.Fields[field]
	if !ok {
		return value{}, false
	}
	return w.reach(path), true
}

// reach follows an operator's path, from the record or, in a fixture, from its
// fields.
func (w *row) reach(path string) value {
	root := w.r.doc.root()
	if v := root.path(path); v.d != nil {
		return v
	}
	return root.fixture().path(path)
}

// mapMetadata carries what the operator's mapping names. It comes before all
// else, so that nothing is carried twice.
func (w *row) mapMetadata() {
	for path, key := range w.r.opts.Map.Metadata {
		if v := w.reach(path); !v.empty() {
			w.metadata(key, v.json())
		}
	}
}

// pick returns the first of the candidates that is not blank, trimmed, for a
// field of ours; only that one counts as carried. The operator's mapping goes
// before all.
func (w *row) pick(field string, candidates ...value) string {
	if v, ok := w.mapped(field); ok {
		return strings.TrimSpace(v.first())
	}
	for _, v := range candidates {
		n := v.node()
		if n.kind == list {
			if s := strings.TrimSpace(v.first()); s != "" {
				return s
			}
		} else if n.kind < list {
			if s := strings.TrimSpace(string(n.text)); s != "" {
				n.used = true
				return s
			}
		}
	}
	return ""
}

// flagOf is pick for a boolean; known is false when the source has none.
func (w *row) flagOf(field string, v value) (is, known bool) {
	if m, ok := w.mapped(field); ok {
		v = m
	}
	if v.kind() == null {
		return false, false
	}
	if v.kind() == text && len(v.node().text) > 5 {
		return v.set(), true // a moment: "verified at"
	}
	return v.flag(), true
}

// source sets the id in the source.
func (w *row) source(v ...value) {
	w.id = w.pick("externalId", v...)
	c := w.cmd()
	c.ExternalID = w.id
	if _, ok := w.mapped("userId"); ok {
		c.UserID = w.pick("userId")
		return
	}
	switch w.r.opts.IDs {
	case IDsKeep:
		c.UserID = w.id
	case IDsAuto:
		if !w.r.spec.serial {
			c.UserID = w.id
		}
	}
}

// names sets the parts of a name that the source has.
func (w *row) names(first, last, full, display, nick value) {
	p := &w.cmd().Profile
	p.FirstName = w.pick("firstName", first)
	p.LastName = w.pick("lastName", last)
	w.full = w.pick("fullName", full)
	p.DisplayName = w.pick("displayName", display)
	p.NickName = w.pick("nickName", nick)
}

func (w *row) userName(candidates ...value) { w.cmd().UserName = w.pick("userName", candidates...) }

// email sets the address and whether it is verified; a source that says
// nothing about that gives a value that is not there.
func (w *row) email(address, verified value) {
	w.cmd().Email.Address = w.pick("email", address)
	if is, known := w.flagOf("emailVerified", verified); known {
		w.verified = &is
	}
}

func (w *row) setVerified(is bool) { w.verified = &is }

func (w *row) phones(verified value, candidates ...value) {
	w.phone = w.pick("phone", candidates...)
	w.phoneVerified, _ = w.flagOf("phoneVerified", verified)
}

func (w *row) language(candidates ...value) {
	w.cmd().Profile.PreferredLanguage = language(w.pick("preferredLanguage", candidates...))
}

// language makes a BCP 47 tag of a POSIX locale ("en_US.UTF-8") or the first
// of a list ("de, en;q=0.8").
func language(s string) string {
	if i := strings.IndexAny(s, ",;.@"); i >= 0 {
		s = s[:i]
	}
	return strings.ReplaceAll(strings.TrimSpace(s), "_", "-")
}

func (w *row) gender(v value) {
	s := strings.ToLower(w.pick("gender", v))
	g := &w.cmd().Profile.Gender
	switch s {
	case "":
	case "female", "f", "woman":
		*g = domain.GenderFemale
	case "male", "m", "man":
		*g = domain.GenderMale
	default:
		*g = domain.GenderDiverse
	}
}

// link adds an identity at a provider; without an id there is none.
func (w *row) link(provider, externalID, display string) {
	if provider == "" || externalID == "" {
		return
	}
	config, ok := w.r.opts.Map.IDPs[provider]
	if !ok {
		config = provider
		tally(w.r.losses.providers, provider)
	}
	w.linkTo(config, externalID, display)
}

// linkTo is link with an id that is already ours.
func (w *row) linkTo(config, externalID, display string) {
	c := w.cmd()
	for _, l := range c.IDPLinks {
		if l.ConfigID == config && l.ExternalUserID == externalID {
			return
		}
	}
	c.IDPLinks = append(c.IDPLinks, domain.IDPLink{ConfigID: config, ExternalUserID: externalID, DisplayName: display})
}

func (w *row) metadata(key string, val []byte) {
	if key == "" || len(val) == 0 {
		return
	}
	c := w.cmd()
	c.Metadata = append(c.Metadata, domain.Metadata{Key: key, Value: val})
}

// members carries each member of an object as metadata, its name behind a
// prefix.
func (w *row) members(v value, prefix string) {
	for m := range v.elements() {
		if !m.empty() && !m.carried() {
			w.metadata(prefix+m.key(), m.json())
		}
	}
}

// inner parses a string that holds JSON, and gives any other value as it is.
// Only one string of a row can be looked into at a time.
func (w *row) inner(v value) (value, bool) {
	n := v.node()
	if n.kind != text {
		return v, v.kind() >= list
	}
	if len(n.text) == 0 || w.r.side.parse(n.text) != nil {
		return value{}, false
	}
	n.used = true
	return w.r.side.root(), true
}

// hash sets the password's hash, if it can be verified; else the person will
// need a reset, and the row says so.
func (w *row) hash(encoded string, err error) {
	if err == nil && encoded == "" {
		return
	}
	if secret := w.r.opts.Secrets[w.r.opts.SecretRef]; err == nil && secret.Pepper != nil && !strings.HasPrefix(encoded, "$muster-") {
		encoded, err = password.Bind(encoded, w.r.opts.SecretRef, secret)
	}
	if err == nil {
		_, err = password.Recognise(encoded)
	}
	if err != nil {
		reason := "password hash encoding not supported"
		var e *password.Error
		if errors.As(err, &e) {
			reason = e.Error()
		}
		w.noHash(reason)
		return
	}
	w.cmd().HashedPassword = encoded
}

// noHash says that the source has a password for the user which cannot be
// taken.
func (w *row) noHash(reason string) {
	tally(w.r.losses.hashes, reason)
	w.warn("hashedPassword", reason+"; the user will need a reset")
}

// secretBase is the name that secrets within rows are kept under.
func (w *row) secretBase() string {
	if ref := w.r.opts.SecretRef; ref != "" {
		return ref
	}
	return string(w.r.format)
}

// ignore marks fields that hold nothing of the person: derived values, stamps.
func (w *row) ignore(names ...string) {
	for _, name := range names {
		w.get(name).use()
	}
}

// falsy marks flags that are not set: only a set one would be a loss.
func (w *row) falsy(names ...string) {
	for _, name := range names {
		if v := w.get(name); v.d != nil && v.kind() < list {
			was := *v.node()
			if v.flag() || len(was.text) > 5 {
				*v.node() = was
			}
		}
	}
}

// factor says that a second factor could not be taken: the user has to set it
// up again.
func (w *row) factor(reason string) {
	tally(w.r.losses.factors, reason)
	w.warn("otpCode", reason)
}

// totp sets the secret, in base32 or as an otpauth URI, if authenticators here
// would show the same codes: SHA-1, six digits, 30 seconds.
func (w *row) totp(secret string) {
	if secret == "" {
		return
	}
	if u, err := url.Parse(secret); err == nil && strings.EqualFold(u.Scheme, "otpauth") {
		q := u.Query()
		if !w.totpKind(u.Host, q.Get("algorithm"), q.Get("digits"), q.Get("period")) {
			return
		}
		secret = q.Get("secret")
	}
	if bare := strings.TrimRight(strings.ToUpper(strings.ReplaceAll(secret, " ", "")), "="); bare == "" ||
		strings.Trim(bare, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		w.factor("the TOTP secret is not base32")
		return
	}
	if w.cmd().TOTPSecret != "" {
		w.factor("a second TOTP secret can't be kept")
		return
	}
	w.cmd().TOTPSecret = secret
}

// totpKind reports whether a second factor is the one kind of TOTP that there is
// here; if not, the row says so. Empty texts stand for the usual values.
func (w *row) totpKind(kind, algorithm, digits, period string) bool {
	is := func(s string, usual ...string) bool {
		return s == "" || slices.ContainsFunc(usual, func(u string) bool { return strings.EqualFold(u, s) })
	}
	switch {
	case !is(kind, "totp", "otp"):
		w.factor("HOTP, by counter, can't be taken")
	case !is(algorithm, "HmacSHA1", "SHA1", "SHA-1"):
		w.factor("TOTP with another digest than SHA-1 can't be taken")
	case !is(digits, "6"):
		w.factor("TOTP with another length than six digits can't be taken")
	case !is(period, "30"):
		w.factor("TOTP with another period than 30 seconds can't be taken")
	default:
		return true
	}
	return false
}

// sides returns the fields of a part's rows that have a key.
func (w *row) sides(p Part, key string) ([][]string, error) {
	rows, err := w.r.sides[p].get(key)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	out := make([][]string, len(rows))
	for i, b := range rows {
		out[i] = unpack(b)
	}
	return out, nil
}

// finish applies the rules that hold for all sources.
func (w *row) finish() {
	c := w.cmd()
	c.TrimNames, c.UserNameFallback, c.Silent = true, true, true
	slices.SortStableFunc(c.Metadata, func(a, b domain.Metadata) int { return strings.Compare(a.Key, b.Key) })
	if w.verified != nil {
		c.Email.Verified = *w.verified && c.Email.Address != ""
	} else {
		c.Email.Verified = w.r.opts.AssumeVerified && c.Email.Address != ""
	}
	w.finishPhone()
	if c.UserName == "" && c.Email.Address == "" && c.Phone != nil {
		c.UserName = c.Phone.Number
	}
	w.finishNames()
	if c.Email.Address == "" && w.r.opts.PlaceholderDomain != "" {
		c.Email.Address = placeholder(w.id) + "@" + w.r.opts.PlaceholderDomain
		if c.UserName == "" {
			c.UserName = c.Email.Address
		}
		w.warn("email.email", "the source has none; a placeholder that nobody receives was put in")
	}
}

// placeholder makes the local part of an address of an id.
func placeholder(id string) string {
	s := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-' {
			return r
		}
		return '-'
	}, id)
	return s[:min(len(s), 64)]
}

func (w *row) finishPhone() {
	if w.phone == "" {
		return
	}
	n := strings.TrimPrefix(w.phone, "tel:")
	if rest, ok := strings.CutPrefix(n, "00"); ok {
		n = "+" + rest
	}
	if !strings.HasPrefix(n, "+") {
		region := w.r.opts.PhoneRegion
		num, err := phonenumbers.Parse(n, region)
		if region == "" || err != nil {
			// Without its country it would be somebody else's number.
			w.warn("phone.phone", "left out: the number has no country code")
			w.r.losses.add("phone without a country code")
			return
		}
		n = phonenumbers.Format(num, phonenumbers.E164)
	}
	w.cmd().Phone = &domain.Phone{Number: n, Verified: w.phoneVerified}
}

// finishNames gives the person a first and a last name, both of which are
// required: from the full name, parted at its last blank, or from what else
// there is.
func (w *row) finishNames() {
	c := w.cmd()
	p := &c.Profile
	if p.FirstName != "" && p.LastName != "" {
		return
	}
	full := w.full
	if full == "" {
		full = p.DisplayName
	}
	full = strings.Join(strings.Fields(full), " ")
	if i := strings.LastIndexByte(full, ' '); i > 0 {
		switch {
		case p.FirstName == "" && p.LastName == "":
			p.FirstName, p.LastName = full[:i], full[i+1:]
			w.warn("profile", "the source has one name only; it was parted at its last blank")
		case p.FirstName == "":
			p.FirstName = strings.TrimSpace(strings.TrimSuffix(full, p.LastName))
			w.warn("profile.firstName", "the source has none; taken from the full name")
		default:
			p.LastName = strings.TrimSpace(strings.TrimPrefix(full, p.FirstName))
			w.warn("profile.lastName", "the source has none; taken from the full name")
		}
		if p.DisplayName == "" {
			p.DisplayName = full
		}
	}
	if p.FirstName != "" && p.LastName != "" {
		return
	}
	stand := full
	for _, s := range []string{p.FirstName, p.LastName, p.NickName, c.UserName, localPart(c.Email.Address), w.id} {
		if stand == "" {
			stand = s
		}
	}
	if p.DisplayName == "" {
		// What is known of the name, rather than a stand-in twice.
		p.DisplayName = strings.TrimSpace(p.FirstName + " " + p.LastName)
		if p.DisplayName == "" {
			p.DisplayName = stand
		}
	}
	if p.FirstName == "" {
		p.FirstName = stand
		w.warn("profile.firstName", "the source has none; another name stands in")
	}
	if p.LastName == "" {
		p.LastName = stand
		w.warn("profile.lastName", "the source has none; another name stands in")
	}
}

func localPart(address string) string {
	local, _, _ := strings.Cut(address, "@")
	return local
}
