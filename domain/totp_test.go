package domain

import (
	"encoding/base32"
	"testing"
	"time"
)

// The vectors are RFC 6238's, appendix B, for SHA-1, their last six digits.
func TestMatchTOTP(t *testing.T) {
	t.Parallel()
	secret := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte("12345678901234567890"))
	for at, code := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"} {
		u := User{TOTPSecret: secret}
		for _, off := range []int64{-30, 0, 30} {
			step, ok := u.MatchTOTP(code, time.Unix(at+off, 0))
			if !ok || step != at/30 {
				t.Errorf("%d%+d: step %d, %v", at, off, step, ok)
			}
		}
		for _, off := range []int64{-60, 60} {
			if _, ok := u.MatchTOTP(code, time.Unix(at+off, 0)); ok && at+off > 0 {
				t.Errorf("%d%+d: a code two steps away is good", at, off)
			}
		}
		u.TOTPStep = at / 30
		if _, ok := u.MatchTOTP(code, time.Unix(at, 0)); ok {
			t.Errorf("%d: a code is good twice", at)
		}
	}
	if _, ok := (&User{}).MatchTOTP("", time.Unix(59, 0)); ok {
		t.Error("without a secret an empty code is good")
	}
}
