//go:build !mutant

package hostile

import (
	"errors"

	"github.com/muster-id/muster/eventstore"
)

// Mutants are the wrong logs that this program knows: none, without the build
// tag mutant.
var Mutants []Variant

// Named returns the variant of that name.
func Named(name string) (Variant, error) {
	if name != True.Name {
		return Variant{}, errors.New("hostile: only a program built with the tag mutant knows other logs than the true one")
	}
	return True, nil
}

func (v *Variant) prepare() {}

func (v *Variant) wrap(s *eventstore.Store) Log { return s }
