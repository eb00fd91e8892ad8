//go:build race

package hostile

func init() { raceDetector = true }
