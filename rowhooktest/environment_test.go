package rowhooktest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/rowhooktest"
)

// A test can't run before its process has its environment, which may describe another server.
func TestVariablesOfOtherServersDontMatterToThePrivateOne(t *testing.T) {
	t.Setenv(rowhooktest.ServerVariable, "")
	for variable, value := range map[string]string{
		"PGSERVICE": "nowhere", "PGOPTIONS": "-c search_path=x", "PGCONNECT_TIMEOUT": "abc", "PGTARGETSESSIONATTRS": "standby", "PGREQUIREAUTH": "none",
		"PGCHANNELBINDING": "require", "PGMINPROTOCOLVERSION": "3.2", "PGSSLROOTCERT": "/nowhere", "PGHOSTADDR": "192.0.2.1", "PGTZ": "Nowhere/Land",
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, value)
			h := shop(t)
			order(t, h, 1)
			h.Wait(t, "order_placed")
			require.NotContains(t, h.URL(), "&", "other clients don't know the parameters")
		})
	}
}
