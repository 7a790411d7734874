package httpapi

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	claim "github.com/stretchr/testify/require" // require is a function of the package
)

func TestWhatAStreamHasNotSentIsReplacedByWhatIsNewer(t *testing.T) {
	t.Parallel()
	var l live
	l.init(nil)
	r := &liveReader{signal: make(chan struct{}, 1)}
	for _, text := range []string{"1", "2", "3"} {
		r.put(liveNews{status: json.RawMessage(text), activity: json.RawMessage("a")})
	}
	claim.Len(t, r.signal, 1)
	claim.Equal(t, liveNews{status: json.RawMessage("3"), activity: json.RawMessage("a")}, l.take(r))
	claim.Equal(t, liveNews{}, l.take(r))
	r.put(liveNews{status: json.RawMessage("4")})
	r.put(liveNews{problem: json.RawMessage("p")})
	claim.Equal(t, liveNews{problem: json.RawMessage("p")}, l.take(r), "the status is old")
	r.put(liveNews{problem: json.RawMessage("p")})
	r.put(liveNews{status: json.RawMessage("5")})
	claim.Equal(t, liveNews{status: json.RawMessage("5")}, l.take(r), "the problem is over")
}

func TestALookThatTakesLongIsMadeLessOften(t *testing.T) {
	t.Parallel()
	claim.Equal(t, time.Second, pause(time.Millisecond, nil))
	claim.Equal(t, 4500*time.Millisecond, pause(500*time.Millisecond, nil))
	claim.Equal(t, liveLongest, pause(time.Minute, nil))
	claim.Equal(t, time.Second, pause(time.Minute, errors.New("away")))
}
