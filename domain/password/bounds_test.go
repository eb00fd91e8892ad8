package password

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const (
	salt16 = "c3ludGhldGljLXNhbHQxNg"
	sum32  = "pHGXaw/zOIsCWDp0ELKeUTUOooQFG5L6LttmlWh/CK4"
)

func aspnet(prf, iterations, salt, sum uint32) string {
	b := []byte{1}
	for _, v := range []uint32{prf, iterations, salt} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return base64.StdEncoding.EncodeToString(append(b, make([]byte, salt+sum)...))
}

// bombs has, for each bound, an encoding just inside and one just outside.
var bombs = []struct{ name, inside, outside string }{
	{"bcrypt cost", "$2b$15$" + strings.Repeat("a", 53), "$2b$16$" + strings.Repeat("a", 53)},
	{"bcrypt cost in bcrypt_sha256", "bcrypt_sha256$$2b$15$" + strings.Repeat("a", 53), "bcrypt_sha256$$2b$31$" + strings.Repeat("a", 53)},
	{"bcrypt cost in WordPress", "$wp$2y$15$" + strings.Repeat("a", 53), "$wp$2y$31$" + strings.Repeat("a", 53)},
	{"bcrypt cost in bcrypt-sha256", "$bcrypt-sha256$v=2,t=2b,r=15$" + strings.Repeat("a", 22) + "$" + strings.Repeat("a", 31), "$bcrypt-sha256$v=2,t=2b,r=16$" + strings.Repeat("a", 22) + "$" + strings.Repeat("a", 31)},
	{"bcrypt cost under a pepper", "$muster-pepper$job$$2b$15$" + strings.Repeat("a", 53), "$muster-pepper$job$$2b$31$" + strings.Repeat("a", 53)},
	{"argon2 memory", "$argon2id$v=19$m=1048576,t=1,p=1$" + salt16 + "$" + sum32, "$argon2id$v=19$m=1048577,t=1,p=1$" + salt16 + "$" + sum32},
	{"argon2 passes", "$argon2id$v=19$m=64,t=10,p=1$" + salt16 + "$" + sum32, "$argon2id$v=19$m=64,t=11,p=1$" + salt16 + "$" + sum32},
	{"argon2 lanes", "$argon2id$v=19$m=256,t=1,p=16$" + salt16 + "$" + sum32, "$argon2id$v=19$m=256,t=1,p=17$" + salt16 + "$" + sum32},
	{"argon2 of the old version", "$argon2i$m=1048576,t=1,p=1$" + salt16 + "$" + sum32, "$argon2i$m=2147483647,t=1,p=1$" + salt16 + "$" + sum32},
	{"argon2 in Django", "argon2$argon2id$v=19$m=64,t=10,p=1$" + salt16 + "$" + sum32, "argon2$argon2id$v=19$m=64,t=999,p=1$" + salt16 + "$" + sum32},
	{"argon2 in LDAP", "{ARGON2}$argon2id$v=19$m=64,t=10,p=1$" + salt16 + "$" + sum32, "{ARGON2}$argon2id$v=19$m=64,t=999,p=1$" + salt16 + "$" + sum32},
	{"scrypt N", "$scrypt$ln=17,r=8,p=1$" + salt16 + "$" + sum32, "$scrypt$ln=18,r=8,p=1$" + salt16 + "$" + sum32},
	{"scrypt N by Kratos", "$scrypt$ln=131072,r=8,p=1$" + salt16 + "$" + sum32, "$scrypt$ln=262144,r=8,p=1$" + salt16 + "$" + sum32},
	{"scrypt r", "$scrypt$ln=1,r=8,p=1$" + salt16 + "$" + sum32, "$scrypt$ln=1,r=9,p=1$" + salt16 + "$" + sum32},
	{"scrypt p", "$scrypt$ln=1,r=8,p=10$" + salt16 + "$" + sum32, "$scrypt$ln=1,r=8,p=11$" + salt16 + "$" + sum32},
	{"scrypt N in crypt(3)", "$7$F6..../....salt$" + strings.Repeat("a", 43), "$7$G6..../....salt$" + strings.Repeat("a", 43)},
	{"scrypt memory in crypt(3)", "$7$DU..../....salt$" + strings.Repeat("a", 43), "$7$EU..../....salt$" + strings.Repeat("a", 43)},
	{"scrypt r in crypt(3)", "$7$1U..../....salt$" + strings.Repeat("a", 43), "$7$1V..../....salt$" + strings.Repeat("a", 43)},
	{"scrypt in Werkzeug", "scrypt:131072:8:1$salt$" + strings.Repeat("a", 64), "scrypt:262144:8:1$salt$" + strings.Repeat("a", 64)},
	{"scrypt in Django", "scrypt$131072$salt$8$1$" + sum32, "scrypt$131072$salt$8$11$" + sum32},
	{"Firebase memory cost", "$muster-firebase$job$ln=17,r=8$" + salt16 + "$" + sum32, "$muster-firebase$job$ln=18,r=8$" + salt16 + "$" + sum32},
	{"Firebase rounds", "$firescrypt$ln=14,r=8,p=1$" + salt16 + "$" + sum32 + "$Bw$" + sum32, "$firescrypt$ln=14,r=1024,p=1$" + salt16 + "$" + sum32 + "$Bw$" + sum32},
	{"Firebase by Supabase", "$fbscrypt$v=1,n=17,r=8,p=1,ss=Bw==,sk=" + sum32 + "$" + salt16 + "$" + sum32, "$fbscrypt$v=1,n=31,r=8,p=1,ss=Bw==,sk=" + sum32 + "$" + salt16 + "$" + sum32},
	{"Firebase by ZITADEL", "$firebasescrypt$ln=17,r=8$" + salt16 + "$" + sum32 + "$Bw$" + sum32, "$firebasescrypt$ln=18,r=8$" + salt16 + "$" + sum32 + "$Bw$" + sum32},
	{"pbkdf2 iterations", "$pbkdf2-sha256$10000000$" + salt16 + "$" + sum32, "$pbkdf2-sha256$10000001$" + salt16 + "$" + sum32},
	{"pbkdf2 iterations times blocks", "$pbkdf2-sha1$5000000$" + salt16 + "$" + sum32, "$pbkdf2-sha1$5000001$" + salt16 + "$" + sum32},
	{"pbkdf2 in Kratos", "$pbkdf2-sha256$i=10000000,l=32$" + salt16 + "$" + sum32, "$pbkdf2-sha256$i=10000001,l=32$" + salt16 + "$" + sum32},
	{"pbkdf2 in Django", "pbkdf2_sha256$10000000$salt$" + sum32, "pbkdf2_sha256$10000001$salt$" + sum32},
	{"pbkdf2 in Werkzeug", "pbkdf2:sha256:10000000$salt$" + strings.Repeat("a", 64), "pbkdf2:sha256:10000001$salt$" + strings.Repeat("a", 64)},
	{"pbkdf2 in LDAP", "{PBKDF2-SHA256}10000000$" + salt16 + "$" + sum32, "{PBKDF2-SHA256}10000001$" + salt16 + "$" + sum32},
	{"pbkdf2 in ASP.NET", aspnet(1, 10_000_000, 16, 32), aspnet(1, 10_000_001, 16, 32)},
	{"pbkdf2 in ASP.NET, long", aspnet(1, 5_000_000, 16, 64), aspnet(1, 5_000_001, 16, 64)},
	{"sha256-crypt rounds", "$5$rounds=10000000$salt$" + strings.Repeat("a", 43), "$5$rounds=10000001$salt$" + strings.Repeat("a", 43)},
	{"sha512-crypt rounds", "$6$rounds=10000000$salt$" + strings.Repeat("a", 86), "{CRYPT}$6$rounds=999999999$salt$" + strings.Repeat("a", 86)},
	{"sha1-crypt rounds", "$sha1$10000000$salt$" + strings.Repeat("a", 28), "$sha1$10000001$salt$" + strings.Repeat("a", 28)},
	{"phpass rounds", "$P$M" + strings.Repeat("a", 30), "$P$N" + strings.Repeat("a", 30)},
	{"phpass rounds over MD5", "U$P$M" + strings.Repeat("a", 30), "U$P$N" + strings.Repeat("a", 30)},
	{"drupal rounds", "$S$G" + strings.Repeat("a", 51), "$S$H" + strings.Repeat("a", 51)},
	{"yescrypt memory", "$y$jCT$salt$" + strings.Repeat("a", 43), "$y$jDT$salt$" + strings.Repeat("a", 43)},
	{"yescrypt N", "$y$jF1$salt$" + strings.Repeat("a", 43), "$y$jG.$salt$" + strings.Repeat("a", 43)},
	{"digest rounds", "$muster-digest$sha256-ps$i=10000000$" + salt16 + "$" + sum32, "$muster-digest$sha256-ps$i=10000001$" + salt16 + "$" + sum32},
}

// TestCostBombs: whatever is outside a bound is refused and nothing is
// derived, by Recognise as by Verify; the bound itself is still in. The hook
// stops the work inside, which some bounds make long.
func TestCostBombs(t *testing.T) {
	stop := errors.New("about to spend")
	secrets := Secrets{"job": {Pepper: &Pepper{Key: Key("pep"), How: PepperSuffix}}}
	for _, b := range bombs {
		t.Run(b.name, func(t *testing.T) {
			if _, err := Recognise(b.outside); !errors.Is(err, ErrTooCostly) {
				t.Errorf("Recognise outside = %v, want ErrTooCostly", err)
			}
			spent := 0
			hook := func(*digest) error { spent++; return stop }
			judge := func(encoded string) error {
				d, err := parse(encoded)
				if err == nil {
					_, err = verify(t.Context(), &d, "x", secrets, hook)
				}
				return err
			}
			if err := judge(b.outside); !errors.Is(err, ErrTooCostly) || spent != 0 {
				t.Errorf("outside: %v after %d derivations, want ErrTooCostly after 0", err, spent)
			}
			if err := judge(b.inside); !errors.Is(err, stop) || spent != 1 {
				t.Errorf("inside: %v after %d derivations, want it to be verified", err, spent)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	hexOf := func(n int) string { return strings.Repeat("a1", n/2) }
	for _, c := range []struct {
		name, encoded string
		kind          error
	}{
		{"empty", "", ErrUnsupported},
		{"plain text", "correct horse battery staple", ErrUnsupported},
		{"plain text in crypt's clothes", "$plaintext$secret", ErrUnsupported},
		{"plain text in LDAP", "{CLEARTEXT}secret", ErrPlaintext},
		{"SHA-1 in hexadecimal", hexOf(40), ErrUnsupported},
		{"SHA-224 in hexadecimal", hexOf(56), ErrUnsupported},
		{"SHA-256 in hexadecimal", hexOf(64), ErrUnsupported},
		{"SHA-384 in hexadecimal", hexOf(96), ErrUnsupported},
		{"SHA-512 in hexadecimal", hexOf(128), ErrUnsupported},
		{"MD5, a digit short", hexOf(32)[1:], ErrUnsupported},
		{"bcrypt 2x", "$2x$10$" + strings.Repeat("a", 53), ErrUnsupported},
		{"bcrypt 2", "$2$10$" + strings.Repeat("a", 53), ErrUnsupported},
		{"bcrypt, cut", "$2b$10$" + strings.Repeat("a", 52), ErrMalformed},
		{"bcrypt, longer", "$2b$10$" + strings.Repeat("a", 54), ErrMalformed},
		{"bcrypt below its own minimum", "$2b$03$" + strings.Repeat("a", 53), ErrMalformed},
		{"bcrypt, cost not a number", "$2b$1x$" + strings.Repeat("a", 53), ErrMalformed},
		{"argon2d", "$argon2d$v=19$m=64,t=1,p=1$" + salt16 + "$" + sum32, ErrUnsupported},
		{"argon2 of an unknown version", "$argon2id$v=20$m=64,t=1,p=1$" + salt16 + "$" + sum32, ErrUnsupported},
		{"argon2 with less memory than it can", "$argon2id$v=19$m=15,t=1,p=2$" + salt16 + "$" + sum32, ErrMalformed},
		{"argon2 without passes", "$argon2id$v=19$m=64,t=0,p=1$" + salt16 + "$" + sum32, ErrMalformed},
		{"argon2 without lanes", "$argon2id$v=19$m=64,t=1$" + salt16 + "$" + sum32, ErrMalformed},
		{"argon2, hash short enough to guess", "$argon2id$v=19$m=64,t=1,p=1$" + salt16 + "$c2hvcnQ", ErrMalformed},
		{"argon2, hash empty", "$argon2id$v=19$m=64,t=1,p=1$" + salt16 + "$", ErrMalformed},
		{"argon2, hash over long", "$argon2id$v=19$m=64,t=1,p=1$" + salt16 + "$" + strings.Repeat("aaaa", 43), ErrMalformed},
		{"argon2, salt over long", "$argon2id$v=19$m=64,t=1,p=1$" + strings.Repeat("aaaa", 86) + "$" + sum32, ErrMalformed},
		{"scrypt with N not a power of two", "$scrypt$ln=1000,r=8,p=1$" + salt16 + "$" + sum32, ErrMalformed},
		{"scrypt with a negative N", "$scrypt$ln=-1,r=8,p=1$" + salt16 + "$" + sum32, ErrMalformed},
		{"pbkdf2 without iterations", "$pbkdf2-sha256$0$" + salt16 + "$" + sum32, ErrMalformed},
		{"pbkdf2 with a leading zero", "$pbkdf2-sha256$012$" + salt16 + "$" + sum32, ErrMalformed},
		{"pbkdf2 whose length lies", "$pbkdf2-sha256$i=12,l=20$" + salt16 + "$" + sum32, ErrMalformed},
		{"pbkdf2 of an unknown digest", "$pbkdf2-sha3$12$" + salt16 + "$" + sum32, ErrUnsupported},
		{"pbkdf2, not base64", "$pbkdf2-sha256$12$" + salt16 + "$" + sum32 + "\n", ErrMalformed},
		{"Kratos template without a password", "$sha256$pf=" + base64.StdEncoding.EncodeToString([]byte("{SALT}")) + "$" + salt16 + "$" + sum32, ErrMalformed},
		{"SuperTokens without its key", "$f_scrypt$" + sum32 + "$" + salt16 + "$m=14$r=8$s=Bw==", ErrSecretMissing},
		{"Firebase key of another length", "$firescrypt$ln=14,r=8,p=1$" + salt16 + "$" + sum32 + "$Bw$" + salt16, ErrMalformed},
		{"reference with a dollar", "$muster-firebase$$ln=14,r=8$" + salt16 + "$" + sum32, ErrMalformed},
		{"pepper on a pepper", "$muster-pepper$a$$muster-pepper$b$" + hexOf(32), ErrMalformed},
		{"SSHA without a salt", "{SSHA}" + base64.StdEncoding.EncodeToString(make([]byte, 20)), ErrMalformed},
		{"SHA of another length", "{SHA}" + base64.StdEncoding.EncodeToString(make([]byte, 21)), ErrMalformed},
		{"our own encodings do not hide in {CRYPT}", "{CRYPT}$muster-pepper$a$" + hexOf(32), ErrUnsupported},
		{"digest shortened", "$muster-digest$sha256-ps$i=1$" + salt16 + "$" + salt16, ErrMalformed},
		{"phpass digest shortened too far", "$muster-digest$sha512-phpass$i=1$" + salt16 + "$" + sum32[:42], ErrMalformed},
		{"salt that nothing is done with", "$muster-digest$sha256-p$i=1$" + salt16 + "$" + sum32, ErrMalformed},
		{"DES crypt", "{CRYPT}ab0123456789a", ErrUnsupported},
		{"LDAP account without a password", "{CRYPT}*", ErrUnusable},
		{"Django user without a password", "!aBcDeF", ErrUnusable},
		{"ASP.NET of an unknown version", base64.StdEncoding.EncodeToString(append([]byte{2}, make([]byte, 48)...)), ErrUnsupported},
		{"ASP.NET with a hash short enough to guess", aspnet(1, 1000, 16, 15), ErrMalformed},
		{"ASP.NET whose salt lies", aspnet(1, 1000, 16, 32)[:16] + "/////" + aspnet(1, 1000, 16, 32)[21:], ErrMalformed},
		{"too long", "$2b$10$" + strings.Repeat("a", MaxEncoded), ErrUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Recognise(c.encoded)
			var e *Error
			if !errors.Is(err, c.kind) || !errors.As(err, &e) {
				t.Fatalf("Recognise = %v, want %v", err, c.kind)
			}
			if _, verr := Verify(t.Context(), c.encoded, "x", nil); !errors.Is(verr, c.kind) {
				t.Errorf("Verify = %v, want %v", verr, c.kind)
			}
		})
	}
}

// TestRefusalsExplain: where a caller can do something about it, the error
// says what.
func TestRefusalsExplain(t *testing.T) {
	for encoded, want := range map[string]string{
		strings.Repeat("a1", 20):                 "algorithm's name",
		strings.Repeat("a1", 64):                 "algorithm's name",
		"$2x$10$" + strings.Repeat("a", 53):      "(bcrypt): the 2x",
		"{CRYPT}ab0123456789a":                   "DES",
		"$argon2d$v=19$m=64,t=1,p=1$" + salt16:   "side channels",
		"$2b$16$" + strings.Repeat("a", 53):      "cost above 15",
		"$y$k9T$salt$" + strings.Repeat("a", 43): "crypt(3)",
	} {
		if _, err := Recognise(encoded); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v does not say %q", encoded, err, want)
		}
	}
	if equal(nil, nil) {
		t.Error("nothing equals nothing")
	}
}

// TestWeakness: what a report calls weak.
func TestWeakness(t *testing.T) {
	for encoded, weak := range map[string]bool{
		"$2b$09$" + strings.Repeat("a", 53):                                              true,
		"$2b$10$" + strings.Repeat("a", 53):                                              false,
		"$wp$2y$10$" + strings.Repeat("a", 53):                                           false,
		"$argon2id$v=19$m=7168,t=5,p=1$" + salt16 + "$" + sum32:                          false,
		"$argon2id$v=19$m=7168,t=4,p=1$" + salt16 + "$" + sum32:                          true,
		"$argon2id$v=19$m=47104,t=1,p=1$" + salt16 + "$" + sum32:                         false,
		"$scrypt$ln=17,r=8,p=1$" + salt16 + "$" + sum32:                                  false,
		"$scrypt$ln=16,r=8,p=1$" + salt16 + "$" + sum32:                                  true,
		"$scrypt$ln=13,r=8,p=10$" + salt16 + "$" + sum32:                                 false,
		"$scrypt$ln=1,r=8,p=1$" + salt16 + "$" + sum32:                                   true,
		"$pbkdf2-sha256$600000$" + salt16 + "$" + sum32:                                  false,
		"$pbkdf2-sha256$599999$" + salt16 + "$" + sum32:                                  true,
		"$pbkdf2-sha512$210000$" + salt16 + "$" + sum32:                                  false,
		"$pbkdf2$1300000$" + salt16 + "$" + sum32:                                        false,
		"$pbkdf2$1299999$" + salt16 + "$" + sum32:                                        true,
		"pbkdf2_sha256$600000$salt$" + sum32:                                             false,
		"$6$salt$" + strings.Repeat("a", 86):                                             true,
		"$P$M" + strings.Repeat("a", 30):                                                 true,
		"$S$G" + strings.Repeat("a", 51):                                                 false,
		"$y$j9T$salt$" + strings.Repeat("a", 43):                                         false,
		"$y$j8T$salt$" + strings.Repeat("a", 43):                                         true,
		"5f4dcc3b5aa765d61d8327deb882cf99":                                               true,
		"{SSHA}Q5TmBD1+Nhhzvb+XrBNL/+d7ZDVzYWx0U0FMVA==":                                 true,
		"$muster-pepper$job$$2b$12$" + strings.Repeat("a", 53):                           false,
		"$muster-digest$sha512-symfony$i=5000$" + salt16 + "$" + strings.Repeat("a", 86): true,
	} {
		if f, err := Recognise(encoded); err != nil || f.Weak() != weak {
			t.Errorf("%s: weak %q, %v; want weak %v", encoded, f.Weakness, err, weak)
		}
	}
}

// TestBoundsByTheNumber holds the maxima that are promised to callers.
func TestBoundsByTheNumber(t *testing.T) {
	got := fmt.Sprint(maxBcryptCost, maxArgon2Memory, maxArgon2Time, maxArgon2Lanes, maxScryptLogN, maxScryptR, maxScryptP,
		maxPBKDF2, maxSHACryptRounds, maxPhpassLog, maxDrupalRounds)
	if want := "15 1048576 10 16 17 8 10 10000000 10000000 24 500000"; got != want {
		t.Errorf("bounds are %s, promised are %s", got, want)
	}
}

func TestVerifyHonoursContextAndLength(t *testing.T) {
	const md5OfEmpty = "d41d8cd98f00b204e9800998ecf8427e"
	if ok, err := Verify(t.Context(), md5OfEmpty, "", nil); ok || err != nil {
		t.Errorf("an empty password: %v, %v; want it never to verify", ok, err)
	}
	long := strings.Repeat("x", MaxPlain+1)
	encoded, err := FromHex("sha1", "0000000000000000000000000000000000000000")
	if err != nil {
		t.Fatal(err)
	}
	d, err := parse(encoded)
	if err != nil {
		t.Fatal(err)
	}
	spent := 0
	if ok, err := verify(t.Context(), &d, long, nil, func(*digest) error { spent++; return nil }); ok || err != nil || spent != 0 {
		t.Errorf("a password over MaxPlain: %v, %v after %d derivations; want false, nil after 0", ok, err, spent)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := verify(ctx, &d, "x", nil, func(*digest) error { spent++; return nil }); !errors.Is(err, context.Canceled) || spent != 0 {
		t.Errorf("ended context: %v after %d derivations; want context.Canceled after 0", err, spent)
	}
}
