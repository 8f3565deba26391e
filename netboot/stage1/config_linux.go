package stage1

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"xnodeos.org/internal/nodeconfig"
)

// settings is what the node config came to.
type settings struct {
	config  *nodeconfig.Config
	plan    NetworkPlan
	network *Network
}

// broughtConfig is what lay in the initrd: the node config of the image, and
// what a takeover handed over of the system before.
type broughtConfig struct{ embedded, takeover *nodeconfig.Config }

// with merges the node config of a volume into it, which may be nil.
func (b broughtConfig) with(volume *nodeconfig.Config) (*nodeconfig.Config, []string) {
	return nodeconfig.Merge(b.embedded, b.takeover, volume)
}

// startConfig looks for XNODE-CFG, merges the node config and starts the network
// by it, all beside the search for the payload. A volume that hangs is given up:
// neither the network nor the servers of a payload wait for it.
func (s *stage) startConfig(ctx context.Context, brought broughtConfig) {
	s.background("read node config", func() {
		volume, notes, err := bounded(configWait+configRead, func() (*nodeconfig.Config, []string) { return s.configVolume(ctx) })
		if err != nil {
			notes = []string{fmt.Sprintf("the volume %s is ignored: %v", nodeconfig.VolumeLabel, err)}
		}
		merged, more := brought.with(volume)
		s.note(slices.Concat(notes, more)...)
		s.set = s.settle(merged)
		close(s.settled)
		if err := s.modules.Load("af_packet"); err != nil {
			s.con.Debugf("%v", err)
		}
		s.set.network.Run(ctx, s.devices.Changed)
	})
}

// awaitConfig waits for startConfig, which has bounds of its own; should it have
// died, the node comes up with what the image brought.
func (s *stage) awaitConfig(brought broughtConfig) settings {
	timer := time.NewTimer(2 * (configWait + configRead))
	defer timer.Stop()
	select {
	case <-s.settled:
		return s.set
	case <-timer.C:
		s.note("reading the node config did not end; only what the image brought is used")
		merged, _ := brought.with(nil)
		return s.settle(merged)
	}
}

// settle plans the network by a node config.
func (s *stage) settle(config *nodeconfig.Config) settings {
	plan, notes := PlanNetwork(s.options.Network, config)
	s.note(notes...)
	return settings{
		config:  withHostname(config, plan, len(s.options.Network) > 0),
		plan:    plan,
		network: NewNetwork(kernelNet{}, plan, uptime, s.con),
	}
}

// configVolume waits until an XNODE-CFG is there, or until all devices are and
// none of them is one.
func (s *stage) configVolume(ctx context.Context) (*nodeconfig.Config, []string) {
	for end := uptime() + configWait; ctx.Err() == nil; {
		changed := s.volumes.Changed.C()
		found := s.volumes.Of(VolumeFAT)
		if len(found) > 0 {
			return s.readVolumes(found)
		}
		if s.devices.Settled() && s.volumes.Idle() || uptime() > end {
			return nil, nil
		}
		pause(ctx, changed, lookPause)
	}
	return nil, nil
}

func (s *stage) readVolumes(found []Volume) (*nodeconfig.Config, []string) {
	var notes []string
	for i, v := range found {
		c, more, err := readConfigVolume(s.modules, v)
		for _, n := range more {
			notes = append(notes, fmt.Sprintf("%s on %s: %s", nodeconfig.VolumeLabel, v.Device, n))
		}
		if err != nil {
			notes = append(notes, fmt.Sprintf("%s on %s: %v", nodeconfig.VolumeLabel, v.Device, err))
			continue
		}
		s.con.Sayf("node config from %s on %s: %s", nodeconfig.VolumeLabel, v.Device, strings.Join(c.Names(), ", "))
		for _, other := range found[i+1:] {
			notes = append(notes, fmt.Sprintf("%s on %s ignored: there is one on %s", nodeconfig.VolumeLabel, other.Device, v.Device))
		}
		return c, notes
	}
	return nil, notes
}
