package password

import "fmt"

// FromFirebase makes the encoding of an exported Firebase user's salt and
// hash, base64 in either alphabet. ref names the import's secret, whose costs
// f holds; the key itself stays out of the encoding.
func FromFirebase(f Firebase, ref, salt, hash string) (string, error) {
	return recognised(fmt.Sprintf("$muster-firebase$%s$ln=%d,r=%d$%s$%s", ref, f.MemCost, f.Rounds, salt, hash))
}
