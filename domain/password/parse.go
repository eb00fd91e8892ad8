package password

import (
	"encoding/binary"
	"math/bits"
	"strings"
)

// kind says which computation verifies a digest.
type kind uint8

const (
	kBcrypt kind = iota
	kArgon2
	kScrypt
	kFirebase
	kPBKDF2
	kMD5Crypt
	kSHACrypt
	kSHA1Crypt
	kPhpass
	kYescrypt
	kDigest
	kTemplate
	kHMAC
	kASPNet
)

// prehash says what is made of the password before the computation.
type prehash uint8

const (
	preNone       prehash = iota
	preMD5Hex             // Drupal 7's rewritten Drupal 6 hashes
	preSHA256Hex          // Django's bcrypt_sha256
	preSHA256B64          // passlib's bcrypt-sha256, version 1
	preHMACSHA256         // passlib's bcrypt-sha256, version 2
	preWordPress          // WordPress 6.8
	preUTF16              // .NET's Encoding.Unicode
)

// layout says in which order a plain digest takes password and salt, and what
// each further round takes.
type layout uint8

const (
	passwordOnly  layout = iota // H(p), then H(d)
	passwordSalt                // H(p s), then H(d)
	saltPassword                // H(s p), then H(d)
	symfonyMerged               // H(p{s}), then H(d p{s})
	phpassRounds                // H(s p), then n times H(d p)
	anyOrder                    // H(p s) or H(s p): the source does not say which
)

// digest is an encoding taken apart. It refers to the encoding's text and is
// decoded only to verify.
type digest struct {
	name string
	weak string
	ref  string // secret that Verify needs
	kind kind
	pre  prehash
	alg  *algo
	lay  layout
	text string // what a crypt(3) computation reproduces whole, or the salt text of preHMACSHA256
	salt field
	sum  field
	key  field // HMAC key, Firebase signer key, or Kratos' template
	sep  field // Firebase salt separator

	pepper bool // ref names a pepper, otherwise a Firebase project

	n, r, p int  // costs: rounds, iterations, log N, KiB …
	version int  // argon2: 16 or 19
	id      bool // argon2id rather than argon2i
	either  bool // Django's md5$/sha1$: Werkzeug spells its HMAC alike
}

func refuse(kind error, format, reason string) error {
	return &Error{Kind: kind, Format: format, Reason: reason}
}

func malformed(format string) error { return refuse(ErrMalformed, format, "") }

func costly(format, reason string) error { return refuse(ErrTooCostly, format, reason) }

// parse takes an encoding apart and checks every bound.
func parse(s string) (digest, error) {
	switch {
	case s == "":
		return digest{}, refuse(ErrUnsupported, "", "it is empty")
	case len(s) > MaxEncoded:
		return digest{}, refuse(ErrUnsupported, "", "it is too long")
	case s[0] == '$':
		return parseMCF(s)
	case s[0] == '{':
		return parseLDAP(s)
	case s[0] == '!' || s[0] == '*':
		return digest{}, refuse(ErrUnusable, "", "")
	case len(s) == 32 && in(s, &hexValue):
		return digest{name: "md5", weak: "unsalted MD5", kind: kDigest, alg: algoMD5, n: 1, sum: field{s, hexa}}, nil
	case (len(s) == 40 || len(s) == 56 || len(s) == 64 || len(s) == 96 || len(s) == 128) && in(s, &hexValue):
		return digest{}, refuse(ErrUnsupported, "", "a bare hexadecimal digest could be of several algorithms; it has to be given with the algorithm's name")
	case strings.HasPrefix(s, "U$"):
		if len(s) < 4 || s[2] != 'P' && s[2] != 'H' && s[2] != 'S' || s[3] != '$' {
			return digest{}, refuse(ErrUnsupported, "", "")
		}
		d, err := parseMCF(s[1:])
		d.name, d.pre = "phpass-of-md5", preMD5Hex
		return d, err
	case s[0] == 'A' && strings.IndexByte(s, '$') < 0:
		return parseASPNet(s)
	}
	return parseNamed(s)
}

// parseMCF parses what begins with "$id$".
func parseMCF(s string) (digest, error) {
	rest := s[1:]
	id := next(&rest)
	switch id {
	case "2a", "2b", "2y":
		return parseBcrypt(s)
	case "2x", "2":
		return digest{}, refuse(ErrUnsupported, "bcrypt", "the 2x and 2 variants compute something else for some passwords")
	case "argon2i", "argon2id":
		return parseArgon2(id, rest)
	case "argon2d", "argon2ds":
		return digest{}, refuse(ErrUnsupported, id, "argon2d leaks through side channels")
	case "scrypt":
		return parseScrypt(rest)
	case "7":
		return parseScrypt7(rest)
	case "y":
		return parseYescrypt(s, rest)
	case "1", "md5-crypt":
		return parseMD5Crypt("md5-crypt", rest)
	case "apr1":
		return parseMD5Crypt("apr1-md5-crypt", rest)
	case "5", "sha256-crypt":
		return parseSHACrypt("sha256-crypt", algoSHA256, 43, rest)
	case "6", "sha512-crypt":
		return parseSHACrypt("sha512-crypt", algoSHA512, 86, rest)
	case "P", "H":
		return parsePhpass("phpass", algoMD5, 34, s)
	case "S":
		return parsePhpass("drupal7", algoSHA512, 55, s)
	case "pbkdf2":
		return parsePBKDF2(algoSHA1, rest)
	case "pbkdf2-sha1", "pbkdf2-sha224", "pbkdf2-sha256", "pbkdf2-sha384", "pbkdf2-sha512":
		return parsePBKDF2(algoNamed(id[len("pbkdf2-"):]), rest)
	case "md5salted-suffix":
		return parseMD5Salted(passwordSalt, rest)
	case "md5salted-prefix":
		return parseMD5Salted(saltPassword, rest)
	case "md5", "sha1", "sha256", "sha512":
		return parseKratosDigest(algoNamed(id), rest)
	case "hmac-md4", "hmac-md5", "hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512":
		return parseHMAC(algoNamed(id[len("hmac-"):]), rest)
	case "wp":
		d, err := parseInner(s[len("$wp"):], kBcrypt, "wordpress-6.8")
		d.name, d.pre = "wordpress-6.8", preWordPress
		return d, err
	case "bcrypt-sha256":
		return parsePasslibBcrypt(rest)
	case "firescrypt", "firebasescrypt", "fbscrypt", "f_scrypt", "muster-firebase":
		return parseFirebase(id, rest)
	case "muster-digest":
		return parseMusterDigest(rest)
	case "muster-hmac-utf16":
		return parseHMACUTF16(rest)
	case "muster-pepper":
		return parsePepper(rest)
	}
	return digest{}, refuse(ErrUnsupported, "", "")
}

// parseNamed parses what begins with a name instead of a '$': Django's and
// Werkzeug's encodings.
func parseNamed(s string) (digest, error) {
	rest := s
	id := next(&rest)
	if rest == "" {
		return digest{}, refuse(ErrUnsupported, "", "")
	}
	switch id {
	case "pbkdf2_sha256":
		return parseDjangoPBKDF2("django-pbkdf2-sha256", algoSHA256, rest)
	case "pbkdf2_sha1":
		return parseDjangoPBKDF2("django-pbkdf2-sha1", algoSHA1, rest)
	case "bcrypt_sha256":
		d, err := parseInner(rest, kBcrypt, "django-bcrypt-sha256")
		d.name, d.pre = "django-bcrypt-sha256", preSHA256Hex
		return d, err
	case "bcrypt":
		return parseInner(rest, kBcrypt, "bcrypt")
	case "argon2":
		return parseInner(s[len("argon2"):], kArgon2, "argon2id")
	case "scrypt":
		return parseDjangoScrypt(rest)
	case "md5":
		return parseDjangoDigest("django-md5", algoMD5, rest)
	case "sha1":
		return parseDjangoDigest("django-sha1", algoSHA1, rest)
	case "sha224", "sha256", "sha384", "sha512":
		return parseWerkzeugHMAC(algoNamed(id), rest)
	}
	switch {
	case strings.HasPrefix(id, "pbkdf2:"):
		return parseWerkzeugPBKDF2(id[len("pbkdf2:"):], rest)
	case strings.HasPrefix(id, "scrypt:"):
		return parseWerkzeugScrypt(id[len("scrypt:"):], rest)
	}
	return digest{}, refuse(ErrUnsupported, "", "")
}

// parseInner parses an encoding that another one wraps, of one kind only.
func parseInner(s string, want kind, name string) (digest, error) {
	ok := false
	switch want {
	case kBcrypt:
		ok = strings.HasPrefix(s, "$2")
	case kArgon2:
		ok = strings.HasPrefix(s, "$argon2")
	}
	if !ok {
		return digest{}, malformed(name)
	}
	return parseMCF(s)
}

func parseBcrypt(s string) (digest, error) {
	if len(s) != 60 || s[6] != '$' || !in(s[7:], &cryptValue) {
		return digest{}, malformed("bcrypt")
	}
	return bcryptCost(s, s[4:6])
}

// bcryptCost makes a bcrypt digest of a whole "$2b$12$…" text.
func bcryptCost(s, cost string) (digest, error) {
	if cost[0]-'0' > 9 || cost[1]-'0' > 9 {
		return digest{}, malformed("bcrypt")
	}
	n := int(cost[0]-'0')*10 + int(cost[1]-'0')
	switch {
	case n < 4:
		return digest{}, malformed("bcrypt")
	case n > maxBcryptCost:
		return digest{}, costly("bcrypt", "cost above 15")
	}
	d := digest{name: "bcrypt", kind: kBcrypt, n: n, text: s}
	if n < 10 {
		d.weak = "bcrypt cost below 10"
	}
	return d, nil
}

// parsePasslibBcrypt parses passlib's bcrypt-sha256: "v=2,t=2b,r=12$salt$sum"
// and the older "2a,12$salt$sum".
func parsePasslibBcrypt(s string) (digest, error) {
	const name = "bcrypt-sha256"
	params, salt, sum := next(&s), next(&s), s
	pre := preSHA256B64
	if v2, ok := strings.CutPrefix(params, "v=2,t="); ok {
		pre = preHMACSHA256
		params = strings.Replace(v2, "r=", "", 1)
	}
	variant, cost, _ := strings.Cut(params, ",")
	if variant != "2a" && variant != "2b" && variant != "2y" || len(cost) < 1 || len(cost) > 2 || len(salt) != 22 || len(sum) != 31 {
		return digest{}, malformed(name)
	}
	if len(cost) == 1 {
		cost = "0" + cost
	}
	d, err := parseBcrypt("$" + variant + "$" + cost + "$" + salt + sum)
	d.name, d.pre, d.salt = name, pre, field{salt, raw}
	return d, err
}

func parseArgon2(name, s string) (digest, error) {
	d := digest{name: name, kind: kArgon2, id: name == "argon2id", version: 16}
	if strings.HasPrefix(s, "v=") {
		switch next(&s) {
		case "v=16":
		case "v=19":
			d.version = 19
		default:
			return d, refuse(ErrUnsupported, name, "only versions 16 and 19 exist")
		}
	}
	params := next(&s)
	d.salt, d.sum = field{next(&s), b64}, field{s, b64}
	var m, t, p int
	for params != "" {
		var kv string
		kv, params, _ = strings.Cut(params, ",")
		k, v, _ := strings.Cut(kv, "=")
		n, ok := number(v)
		switch {
		case !ok || n == 0:
			return d, malformed(name)
		case k == "m" && m == 0:
			m = n
		case k == "t" && t == 0:
			t = n
		case k == "p" && p == 0:
			p = n
		default:
			return d, malformed(name)
		}
	}
	d.n, d.r, d.p = m, t, p
	switch {
	case m == 0 || t == 0 || p == 0, !d.salt.between(1, maxSalt), !d.sum.between(minSum, maxSum):
		return d, malformed(name)
	case m > maxArgon2Memory:
		return d, costly(name, "memory above 1 GiB")
	case t > maxArgon2Time:
		return d, costly(name, "more than 10 passes")
	case p > maxArgon2Lanes:
		return d, costly(name, "more than 16 lanes")
	case m < 8*p:
		return d, malformed(name)
	}
	if !(m >= 47104 || m >= 19456 && t >= 2 || m >= 12288 && t >= 3 || m >= 9216 && t >= 4 || m >= 7168 && t >= 5) {
		d.weak = "argon2 memory and passes below OWASP's minimum"
	}
	return d, nil
}

// scrypt bounds and judges the parameters that every spelling of scrypt has.
func (d *digest) scrypt(logN, r, p, maxR int) error {
	d.kind, d.n, d.r, d.p = kScrypt, logN, r, p
	switch {
	case logN < 1 || r < 1 || p < 1:
		return malformed(d.name)
	case logN > maxScryptLogN:
		return costly(d.name, "N above 2^17")
	case r > maxR:
		return costly(d.name, "r too large")
	case r<<logN > maxScryptR<<maxScryptLogN:
		return costly(d.name, "memory above 128 MiB")
	case p > maxScryptP:
		return costly(d.name, "p above 10")
	}
	// OWASP's equivalents of N and p: 2^17/1, 2^16/2, 2^15/3, 2^14/5, 2^13/10,
	// all at r=8; another r counts for as much memory.
	need := [...]int{13: 10, 14: 5, 15: 3, 16: 2, 17: 1}
	if n := bits.Len(uint(r)<<logN) - 4; n < 13 || p < need[n] {
		d.weak = "scrypt cost below OWASP's minimum"
	}
	return nil
}

// logOf returns log2 of a power of two, -1 of anything else.
func logOf(n int) int {
	if n < 1 || n&(n-1) != 0 {
		return -1
	}
	l := 0
	for ; n > 1; n >>= 1 {
		l++
	}
	return l
}

func parseScrypt(s string) (digest, error) {
	d := digest{name: "scrypt"}
	params, salt, sum := next(&s), next(&s), s
	d.salt, d.sum = field{salt, b64}, field{sum, b64}
	n, r, p, ok := lnrp(params)
	// Kratos writes N itself where everybody else writes its logarithm. No N
	// of use to anybody is below 64, no logarithm above.
	if n >= 64 {
		n = logOf(n)
	}
	if !ok || n < 0 || !d.salt.between(0, maxSalt) || !d.sum.between(minSum, maxSum) {
		return d, malformed(d.name)
	}
	return d, d.scrypt(n, r, p, maxScryptR)
}

// lnrp reads "ln=14,r=8,p=1"; a missing p is 1.
func lnrp(s string) (ln, r, p int, ok bool) {
	lns, s, _ := strings.Cut(s, ",")
	rs, ps, more := strings.Cut(s, ",")
	ln, ok1 := numberAfter(lns, "ln=")
	r, ok2 := numberAfter(rs, "r=")
	p, ok3 := 1, true
	if more {
		p, ok3 = numberAfter(ps, "p=")
	}
	return ln, r, p, ok1 && ok2 && ok3
}

func numberAfter(s, prefix string) (int, bool) {
	s, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return 0, false
	}
	return number(s)
}

// parseScrypt7 parses crypt(3)'s scrypt: one character of log N, five each of
// r and p, the salt's text, the hash.
func parseScrypt7(s string) (digest, error) {
	d := digest{name: "scrypt"}
	if len(s) < 11 || !in(s[:11], &cryptValue) {
		return d, malformed(d.name)
	}
	n, r, p := int(cryptValue[s[0]]), cryptInt(s[1:6]), cryptInt(s[6:11])
	s = s[11:]
	d.salt, d.sum = field{next(&s), raw}, field{s, cry64}
	if !d.salt.between(0, maxSalt) || !d.sum.between(32, 32) {
		return d, malformed(d.name)
	}
	return d, d.scrypt(n, r, p, maxScrypt7R)
}

// cryptInt reads up to five characters, least significant first.
func cryptInt(s string) int {
	n := 0
	for i := len(s) - 1; i >= 0; i-- {
		n = n<<6 | int(cryptValue[s[i]])
	}
	return n
}

// parseYescrypt parses the settings that crypt(3) writes: "$y$j", one
// character each of log N and r, the salt.
func parseYescrypt(s, rest string) (digest, error) {
	d := digest{name: "yescrypt", kind: kYescrypt, text: s}
	params, salt, sum := next(&rest), next(&rest), rest
	if len(params) != 3 || params[0] != 'j' || !in(params, &cryptValue) {
		return d, refuse(ErrUnsupported, d.name, "only the settings that crypt(3) writes are known")
	}
	n, r := int(cryptValue[params[1]])+1, int(cryptValue[params[2]])+1
	if !(field{salt, cry64}).between(1, maxSalt) || !(field{sum, cry64}).between(32, 32) || n < 10 || r > 32 {
		return d, malformed(d.name)
	}
	if n > 18 || r<<n > maxYescryptNR {
		return d, costly(d.name, "memory above 128 MiB")
	}
	d.n, d.r = n, r
	if r<<n < 1<<17 {
		d.weak = "yescrypt memory below 16 MiB"
	}
	return d, nil
}

func parseMD5Crypt(name, s string) (digest, error) {
	d := digest{name: name, weak: "MD5-based, 1,000 rounds", kind: kMD5Crypt}
	d.salt, d.sum = field{next(&s), raw}, field{s, cry64}
	if !d.salt.between(0, 8) || len(s) != 22 || !d.sum.between(16, 16) {
		return d, malformed(name)
	}
	return d, nil
}

func parseSHACrypt(name string, alg *algo, sumLen int, s string) (digest, error) {
	d := digest{name: name, kind: kSHACrypt, alg: alg, n: 5000}
	if strings.HasPrefix(s, "rounds=") {
		var ok bool
		if d.n, ok = numberAfter(next(&s), "rounds="); !ok || d.n < 1 {
			return d, malformed(name)
		}
	}
	d.salt, d.sum = field{next(&s), raw}, field{s, cry64}
	switch {
	case !d.salt.between(0, 16), len(s) != sumLen, !d.sum.between(alg.size, alg.size):
		return d, malformed(name)
	case d.n > maxSHACryptRounds:
		return d, costly(name, "more than 10,000,000 rounds")
	}
	d.weak = slowEnough(alg, d.n)
	return d, nil
}

// slowEnough judges rounds of a digest by OWASP's numbers for PBKDF2.
func slowEnough(alg *algo, n int) string {
	least := 600_000
	switch alg.size {
	case 16, 20:
		least = 1_300_000
	case 48, 64:
		least = 210_000
	}
	if n < least {
		return "iterations below OWASP's minimum"
	}
	return ""
}

// parsePhpass parses "$P$B" + 8 characters of salt + hash, and Drupal's.
func parsePhpass(name string, alg *algo, length int, s string) (digest, error) {
	d := digest{name: name, weak: "MD5-based", kind: kPhpass, alg: alg}
	if len(s) != length || !in(s[3:], &cryptValue) {
		return d, malformed(name)
	}
	log := int(cryptValue[s[3]])
	switch {
	case log < 1:
		return d, malformed(name)
	case alg == algoMD5 && log > maxPhpassLog:
		return d, costly(name, "more than 2^24 rounds")
	case alg == algoSHA512 && (log > 20 || 1<<log > maxDrupalRounds):
		return d, costly(name, "more than 500,000 rounds")
	}
	d.n, d.salt, d.sum = 1<<log, field{s[4:12], raw}, field{s[12:], cry64}
	if alg == algoSHA512 {
		d.weak = slowEnough(alg, d.n)
	}
	return d, nil
}

// pbkdf2 bounds and judges the parameters that every spelling of PBKDF2 has.
func (d *digest) pbkdf2(n int) error {
	d.kind, d.n = kPBKDF2, n
	size, ok := d.sum.size()
	switch {
	case n < 1, !ok || size < minSum || size > maxSum, !d.salt.between(0, maxSalt):
		return malformed(d.name)
	case n*((size+d.alg.size-1)/d.alg.size) > maxPBKDF2:
		return costly(d.name, "more than 10,000,000 iterations")
	}
	d.weak = slowEnough(d.alg, n)
	return nil
}

// parsePBKDF2 parses "12000$salt$sum" and Kratos' "i=12000,l=32$salt$sum".
func parsePBKDF2(alg *algo, s string) (digest, error) {
	d := digest{name: alg.pbkdf2, alg: alg}
	params, salt, sum := next(&s), next(&s), s
	d.salt, d.sum = field{salt, b64}, field{sum, b64}
	length := -1
	if strings.HasPrefix(params, "i=") {
		var l string
		var ok bool
		if params, l, ok = strings.Cut(params[2:], ","); ok {
			if length, ok = numberAfter(l, "l="); !ok {
				return d, malformed(d.name)
			}
		}
	}
	n, ok := number(params)
	if size, _ := d.sum.size(); !ok || length >= 0 && length != size {
		return d, malformed(d.name)
	}
	return d, d.pbkdf2(n)
}

func parseDjangoPBKDF2(name string, alg *algo, s string) (digest, error) {
	d := digest{name: name, alg: alg}
	n, ok := number(next(&s))
	d.salt, d.sum = field{next(&s), raw}, field{s, b64}
	if !ok {
		return d, malformed(name)
	}
	return d, d.pbkdf2(n)
}

// parseWerkzeugPBKDF2 parses "sha256:600000" + "salt$hex".
func parseWerkzeugPBKDF2(params, s string) (digest, error) {
	d := digest{name: "werkzeug-pbkdf2"}
	name, iterations, _ := strings.Cut(params, ":")
	n, ok := number(iterations)
	d.alg = algoNamed(name)
	d.salt, d.sum = field{next(&s), raw}, field{s, hexa}
	if !ok || d.alg == nil || d.alg == algoMD4 {
		return d, malformed(d.name)
	}
	return d, d.pbkdf2(n)
}

// parseWerkzeugScrypt parses "32768:8:1" + "salt$hex".
func parseWerkzeugScrypt(params, s string) (digest, error) {
	d := digest{name: "werkzeug-scrypt"}
	ns, params, _ := strings.Cut(params, ":")
	rs, ps, _ := strings.Cut(params, ":")
	n, ok1 := number(ns)
	r, ok2 := number(rs)
	p, ok3 := number(ps)
	d.salt, d.sum = field{next(&s), raw}, field{s, hexa}
	if !ok1 || !ok2 || !ok3 || !d.salt.between(0, maxSalt) || !d.sum.between(minSum, maxSum) {
		return d, malformed(d.name)
	}
	return d, d.scrypt(logOf(n), r, p, maxScryptR)
}

// parseDjangoScrypt parses "N$salt$r$p$sum".
func parseDjangoScrypt(s string) (digest, error) {
	d := digest{name: "django-scrypt"}
	n, ok1 := number(next(&s))
	d.salt = field{next(&s), raw}
	r, ok2 := number(next(&s))
	p, ok3 := number(next(&s))
	d.sum = field{s, b64}
	if !ok1 || !ok2 || !ok3 || !d.salt.between(0, maxSalt) || !d.sum.between(minSum, maxSum) {
		return d, malformed(d.name)
	}
	return d, d.scrypt(logOf(n), r, p, maxScryptR)
}

// parseDjangoDigest parses "salt$hex". Django hashes salt and password;
// Werkzeug spells an HMAC alike. Only one of the two can match.
func parseDjangoDigest(name string, alg *algo, s string) (digest, error) {
	d := digest{name: name, weak: "one round of " + alg.name, kind: kDigest, alg: alg, n: 1, lay: saltPassword}
	d.weak = oneRound(alg)
	d.salt, d.sum = field{next(&s), raw}, field{s, hexa}
	d.either = d.salt.text != ""
	if !d.salt.between(0, maxSalt) || !d.sum.between(alg.size, alg.size) {
		return d, malformed(name)
	}
	return d, nil
}

// parseWerkzeugHMAC parses "salt$hex": HMAC of the password under the salt.
func parseWerkzeugHMAC(alg *algo, s string) (digest, error) {
	d := digest{name: "werkzeug-hmac", weak: "one round of a fast digest", kind: kHMAC, alg: alg}
	d.key, d.sum = field{next(&s), raw}, field{s, hexa}
	if !d.key.between(1, maxSalt) || !d.sum.between(alg.size, alg.size) {
		return d, malformed(d.name)
	}
	return d, nil
}

func oneRound(alg *algo) string {
	switch alg {
	case algoMD5:
		return "one round of MD5"
	case algoSHA1:
		return "one round of SHA-1"
	}
	return "one round of a fast digest"
}

// parseMD5Salted parses "salt$sum". The salt is its own text, the sum base64.
func parseMD5Salted(lay layout, s string) (digest, error) {
	d := digest{name: "md5salted", weak: "one round of MD5", kind: kDigest, alg: algoMD5, n: 1, lay: lay}
	d.salt, d.sum = field{next(&s), raw}, field{s, b64}
	if !d.salt.between(1, maxSalt) || !d.sum.between(16, 16) {
		return d, malformed(d.name)
	}
	return d, nil
}

// parseKratosDigest parses "pf=<template>$salt$sum", MD5's bare "sum", and
// NetBSD's sha1-crypt, which has the same "$sha1$".
func parseKratosDigest(alg *algo, s string) (digest, error) {
	d := digest{name: alg.kratos, weak: oneRound(alg), kind: kTemplate, alg: alg, n: 1}
	params := next(&s)
	template, ok := strings.CutPrefix(params, "pf=")
	switch {
	case ok:
		d.key, d.salt, d.sum = field{template, b64}, field{next(&s), b64}, field{s, b64}
		if !d.key.between(1, maxSalt) || !d.salt.between(0, maxSalt) || !d.sum.between(alg.size, alg.size) {
			return d, malformed(d.name)
		}
		// Without the password in it, every password would do.
		if !strings.Contains(string(d.key.bytes()), "{PASSWORD}") {
			return d, malformed(d.name)
		}
		return d, nil
	case alg == algoMD5 && s == "":
		d.kind, d.sum, d.weak = kDigest, field{params, b64}, "unsalted MD5"
		if !d.sum.between(16, 16) {
			return d, malformed(d.name)
		}
		return d, nil
	case alg == algoSHA1:
		return parseSHA1Crypt(params, s)
	}
	return d, malformed(d.name)
}

func parseSHA1Crypt(rounds, s string) (digest, error) {
	d := digest{name: "sha1-crypt", kind: kSHA1Crypt}
	n, ok := number(rounds)
	d.n, d.salt, d.sum = n, field{next(&s), raw}, field{s, cry64}
	switch {
	case !ok || n < 1, !d.salt.between(1, 64), len(s) != 28, !d.sum.between(21, 21):
		return d, malformed(d.name)
	case n > maxDigestRounds:
		return d, costly(d.name, "more than 10,000,000 rounds")
	}
	d.weak = slowEnough(algoSHA1, n)
	return d, nil
}

// parseHMAC parses Kratos' "sum$key": the sum is base64 of hexadecimal text,
// or of the bytes.
func parseHMAC(alg *algo, s string) (digest, error) {
	d := digest{name: alg.hmac, weak: "one round of a fast digest", kind: kHMAC, alg: alg}
	d.sum, d.key = field{next(&s), b64}, field{s, b64}
	n, ok := d.sum.size()
	if ok && n == 2*alg.size && in(string(d.sum.bytes()), &hexValue) {
		d.sum.enc, n = b64Hex, alg.size
	}
	if !ok || n != alg.size || !d.key.between(1, maxSalt) {
		return d, malformed(d.name)
	}
	return d, nil
}

// parseHMACUTF16 parses "salt$sum": HMAC-SHA-256 of the password in UTF-16LE.
func parseHMACUTF16(s string) (digest, error) {
	d := digest{name: "hmac-sha256-utf16", weak: "one round of a fast digest", kind: kHMAC, alg: algoSHA256, pre: preUTF16}
	d.key, d.sum = field{next(&s), b64}, field{s, b64}
	if !d.key.between(1, maxSalt) || !d.sum.between(32, 32) {
		return d, malformed(d.name)
	}
	return d, nil
}

// parseMusterDigest parses "<algorithm>-<layout>$i=<rounds>$salt$sum".
func parseMusterDigest(s string) (digest, error) {
	d := digest{name: "digest-sha256", kind: kDigest}
	name, order, _ := strings.Cut(next(&s), "-")
	n, ok := numberAfter(next(&s), "i=")
	d.salt, d.sum = field{next(&s), b64}, field{s, b64}
	d.alg, d.n = algoNamed(name), n
	lay := layoutNamed(order)
	if d.alg == nil || d.alg == algoMD4 || lay < 0 || !ok || n < 1 || !d.salt.between(0, maxSalt) {
		return d, malformed(d.name)
	}
	d.name, d.lay = d.alg.digest, layout(lay)
	least := d.alg.size
	if d.lay == phpassRounds {
		least = min(least, 32) // some write a shortened SHA-512
	}
	switch {
	case !d.sum.between(least, d.alg.size), d.lay == passwordOnly && d.salt.text != "", d.lay == anyOrder && n > 1:
		return d, malformed(d.name)
	case n > maxDigestRounds:
		return d, costly(d.name, "more than 10,000,000 rounds")
	case n == 1:
		d.weak = oneRound(d.alg)
	default:
		d.weak = slowEnough(d.alg, n)
	}
	if d.salt.text == "" {
		d.weak = "unsalted"
	}
	return d, nil
}

var layoutNames = [...]string{passwordOnly: "p", passwordSalt: "ps", saltPassword: "sp", symfonyMerged: "symfony", phpassRounds: "phpass", anyOrder: "any"}

func layoutNamed(s string) int {
	for i, name := range layoutNames {
		if s == name {
			return i
		}
	}
	return -1
}

// parseASPNet parses the base64 blobs of ASP.NET Core Identity.
func parseASPNet(s string) (digest, error) {
	f := field{s, b64}
	d := digest{name: "aspnet-identity-v3", kind: kASPNet, salt: f}
	n, ok := f.size()
	if !ok || n < 13 || n > 13+maxSalt+maxSum {
		return d, refuse(ErrUnsupported, "", "")
	}
	var buf [13]byte
	if head := decode64(s[:18], &b64Value, true); copy(buf[:], head) < 13 {
		return d, malformed(d.name)
	}
	switch buf[0] {
	case 0:
		d.name, d.alg, d.n, d.r, d.p = "aspnet-identity-v2", algoSHA1, 1000, 1, 17
		if n != 49 {
			return d, malformed(d.name)
		}
	case 1:
		prf, iterations, salt := binary.BigEndian.Uint32(buf[1:]), binary.BigEndian.Uint32(buf[5:]), binary.BigEndian.Uint32(buf[9:])
		switch {
		case prf > 2, iterations == 0, salt > maxSalt, n < 13+int(salt)+minSum, n > 13+int(salt)+maxSum:
			return d, malformed(d.name)
		}
		d.alg = [...]*algo{algoSHA1, algoSHA256, algoSHA512}[prf]
		d.n, d.r, d.p = int(iterations), 13, 13+int(salt)
		if d.n*((n-d.p+d.alg.size-1)/d.alg.size) > maxPBKDF2 {
			return d, costly(d.name, "more than 10,000,000 iterations")
		}
	default:
		return d, refuse(ErrUnsupported, "", "")
	}
	d.weak = slowEnough(d.alg, d.n)
	return d, nil
}

// parseLDAP parses RFC 2307's "{SCHEME}value", the scheme in any case.
func parseLDAP(s string) (digest, error) {
	scheme, value, ok := strings.Cut(s[1:], "}")
	if !ok || len(scheme) > 20 {
		return digest{}, refuse(ErrUnsupported, "", "")
	}
	var buf [20]byte
	for i := range len(scheme) {
		c := scheme[i]
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		buf[i] = c
	}
	switch string(buf[:len(scheme)]) {
	case "MD5":
		return ldapDigest("ldap-md5", algoMD5, value, false)
	case "SHA", "SHA1":
		return ldapDigest("ldap-sha", algoSHA1, value, false)
	case "SHA256":
		return ldapDigest("ldap-sha256", algoSHA256, value, false)
	case "SHA384":
		return ldapDigest("ldap-sha384", algoSHA384, value, false)
	case "SHA512":
		return ldapDigest("ldap-sha512", algoSHA512, value, false)
	case "SMD5":
		return ldapDigest("ldap-smd5", algoMD5, value, true)
	case "SSHA", "SSHA1":
		return ldapDigest("ldap-ssha", algoSHA1, value, true)
	case "SSHA256":
		return ldapDigest("ldap-ssha256", algoSHA256, value, true)
	case "SSHA384":
		return ldapDigest("ldap-ssha384", algoSHA384, value, true)
	case "SSHA512":
		return ldapDigest("ldap-ssha512", algoSHA512, value, true)
	case "PBKDF2", "PBKDF2-SHA1":
		return ldapPBKDF2("ldap-pbkdf2-sha1", algoSHA1, value)
	case "PBKDF2-SHA256":
		return ldapPBKDF2("ldap-pbkdf2-sha256", algoSHA256, value)
	case "PBKDF2-SHA512":
		return ldapPBKDF2("ldap-pbkdf2-sha512", algoSHA512, value)
	case "CRYPT", "ARGON2", "ARGON2I", "ARGON2ID", "BCRYPT", "BLF-CRYPT", "MD5-CRYPT", "SHA256-CRYPT", "SHA512-CRYPT":
		if strings.HasPrefix(value, "$") && !strings.HasPrefix(value, "$muster-") {
			return parseMCF(value)
		}
		if value == "" || strings.ContainsAny(value[:1], "!*x") {
			return digest{}, refuse(ErrUnusable, "", "")
		}
		return digest{}, refuse(ErrUnsupported, "", "DES-based crypt(3) is not supported")
	case "CLEARTEXT", "CLEAR", "PLAIN", "PLAIN-TEXT":
		return digest{}, refuse(ErrPlaintext, "", "")
	}
	return digest{}, refuse(ErrUnsupported, "", "")
}

// ldapDigest parses base64 of the digest of password and salt, followed by the
// salt: whatever is left.
func ldapDigest(name string, alg *algo, value string, salted bool) (digest, error) {
	d := digest{name: name, weak: oneRound(alg), kind: kDigest, alg: alg, n: 1, lay: passwordOnly, sum: field{value, b64}}
	least, most := alg.size, alg.size
	if salted {
		d.lay, least, most = passwordSalt, alg.size+1, alg.size+maxSalt
	} else {
		d.weak = "unsalted"
	}
	if !d.sum.between(least, most) {
		return d, malformed(name)
	}
	return d, nil
}

// ldapPBKDF2 parses "10000$salt$sum".
func ldapPBKDF2(name string, alg *algo, s string) (digest, error) {
	d := digest{name: name, alg: alg}
	n, ok := number(next(&s))
	d.salt, d.sum = field{next(&s), b64}, field{s, b64}
	if !ok {
		return d, malformed(name)
	}
	return d, d.pbkdf2(n)
}

// parseFirebase parses the four spellings in the wild and our own, in which a
// reference stands for the project's key.
func parseFirebase(id, s string) (digest, error) {
	d := digest{name: "firebase-scrypt"}
	bad := malformed(d.name)
	n, r, p, ok := 0, 0, 1, false
	switch id {
	case "firescrypt", "firebasescrypt": // Kratos, ZITADEL: ln=14,r=8[,p=1]$salt$sum$sep$key
		n, r, p, ok = lnrp(next(&s))
		d.salt, d.sum, d.sep, d.key = field{next(&s), b64}, field{next(&s), b64}, field{next(&s), b64}, field{s, b64}
	case "fbscrypt": // Supabase: v=1,n=14,r=8,p=1,ss=…,sk=…$salt$sum
		params := next(&s)
		params, ok = strings.CutPrefix(params, "v=1,n=")
		var v [5]string
		for i, sep := range [...]string{",r=", ",p=", ",ss=", ",sk="} {
			var found bool
			v[i], params, found = strings.Cut(params, sep)
			ok = ok && found
		}
		var ok1, ok2, ok3 bool
		n, ok1 = number(v[0])
		r, ok2 = number(v[1])
		p, ok3 = number(v[2])
		ok = ok && ok1 && ok2 && ok3
		d.sep, d.key = field{v[3], b64}, field{params, b64}
		d.salt, d.sum = field{next(&s), b64}, field{s, b64}
	case "f_scrypt": // SuperTokens: sum$salt$m=14$r=8$s=sep, the key elsewhere
		d.sum, d.salt = field{next(&s), b64}, field{next(&s), b64}
		var ok1, ok2, ok3 bool
		n, ok1 = numberAfter(next(&s), "m=")
		r, ok2 = numberAfter(next(&s), "r=")
		_, ok3 = strings.CutPrefix(s, "s=")
		ok = ok1 && ok2 && ok3
	case "muster-firebase": // ref$ln=14,r=8$salt$sum
		d.ref = next(&s)
		n, r, p, ok = lnrp(next(&s))
		ok = ok && validRef(d.ref)
		d.salt, d.sum = field{next(&s), b64}, field{s, b64}
	}
	if !ok || p != 1 || !d.salt.between(0, maxSalt) || !d.sum.between(minSum, maxSum) {
		return d, bad
	}
	if d.key.text != "" || id[0] == 'f' && id != "f_scrypt" {
		size, _ := d.sum.size()
		if !d.sep.between(0, 64) || !d.key.between(size, size) {
			return d, bad
		}
	}
	if err := d.scrypt(n, r, p, maxScryptR); err != nil {
		return d, err
	}
	d.kind = kFirebase
	if id == "f_scrypt" {
		return d, refuse(ErrSecretMissing, d.name, "the project's signer key is not part of this spelling")
	}
	return d, nil
}

// parsePepper parses "ref" + a whole encoding, '$' and all.
func parsePepper(s string) (digest, error) {
	ref, inner, _ := strings.Cut(s, "$")
	if !validRef(ref) || strings.HasPrefix(inner, "$muster-pepper$") || strings.HasPrefix(inner, "$muster-firebase$") {
		return digest{}, malformed("peppered")
	}
	d, err := parse(inner)
	if err != nil {
		return d, err
	}
	if d.name == "bcrypt" {
		d.name = "bcrypt-peppered"
	} else {
		d.name = "peppered"
	}
	d.ref, d.pepper = ref, true
	return d, nil
}

// validRef reports whether s can name a secret: 1 to 64 letters, digits and
// "-_.:".
func validRef(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '_', c == '.', c == ':':
		default:
			return false
		}
	}
	return true
}
