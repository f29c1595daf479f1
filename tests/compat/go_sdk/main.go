// The Go SDK against a gateway. Prints one line per case: `case {"feature": …, "ok": …, "error": …}`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ably/ably-go/ably"
)

const patience = 10 * time.Second

var channels int

func unique() string {
	channels++
	return fmt.Sprintf("plain:go-%s-%d-%d", os.Getenv("FORMAT"), time.Now().UnixNano(), channels)
}

// ports of the gateways.
func ports() []int {
	var found []int
	for _, text := range strings.Split(os.Getenv("PORTS"), ",") {
		port, err := strconv.Atoi(text)
		if err != nil {
			panic(err)
		}
		found = append(found, port)
	}
	return found
}

func options(clientID string, port int, more ...ably.ClientOption) []ably.ClientOption {
	return append([]ably.ClientOption{
		ably.WithKey(os.Getenv("KEY")),
		ably.WithClientID(clientID),
		ably.WithEndpoint("127.0.0.1"),
		ably.WithPort(port),
		ably.WithTLS(false),
		ably.WithInsecureAllowBasicAuthWithoutTLS(),
		ably.WithUseBinaryProtocol(os.Getenv("FORMAT") == "msgpack"),
		ably.WithLogLevel(ably.LogNone),
	}, more...)
}

func await(client *ably.Realtime, wanted ably.ConnectionState) error {
	deadline := time.Now().Add(patience)
	reached := make(chan struct{}, 16)
	off := client.Connection.OnAll(func(ably.ConnectionStateChange) { reached <- struct{}{} })
	defer off()
	for client.Connection.State() != wanted {
		if time.Now().After(deadline) {
			return fmt.Errorf("connection is %v, not %v: %v", client.Connection.State(), wanted, client.Connection.ErrorReason())
		}
		select {
		case <-reached:
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

func connected(clientID string, port int, more ...ably.ClientOption) (*ably.Realtime, error) {
	client, err := ably.NewRealtime(options(clientID, port, more...)...)
	if err != nil {
		return nil, err
	}
	return client, await(client, ably.ConnectionStateConnected)
}

func within() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	time.AfterFunc(patience, cancel)
	return ctx
}

// gather returns the data of the next messages.
func gather(heard <-chan string, count int) ([]string, error) {
	var got []string
	timeout := time.After(patience)
	for len(got) < count {
		select {
		case data := <-heard:
			got = append(got, data)
		case <-timeout:
			return got, fmt.Errorf("%d of %d messages came: %v", len(got), count, got)
		}
	}
	return got, nil
}

func subscribed(client *ably.Realtime, name string) (*ably.RealtimeChannel, <-chan string, error) {
	channel := client.Channels.Get(name)
	heard := make(chan string, 1000)
	_, err := channel.SubscribeAll(within(), func(message *ably.Message) { heard <- fmt.Sprint(message.Data) })
	return channel, heard, err
}

// network is a TCP proxy that can drop its connections.
type network struct {
	listener net.Listener
	mutex    sync.Mutex
	open     []net.Conn
}

func newNetwork(port int) (*network, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &network{listener: listener}
	go func() {
		for {
			inner, err := listener.Accept()
			if err != nil {
				return
			}
			outer, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				inner.Close()
				continue
			}
			n.mutex.Lock()
			n.open = append(n.open, inner, outer)
			n.mutex.Unlock()
			pipe := func(to, from net.Conn) { io.Copy(to, from); to.Close(); from.Close() }
			go pipe(inner, outer)
			go pipe(outer, inner)
		}
	}()
	return n, nil
}

func (n *network) port() int { return n.listener.Addr().(*net.TCPAddr).Port }

func (n *network) cut() {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for _, connection := range n.open {
		connection.Close()
	}
	n.open = nil
}

func connects() error {
	client, err := connected("ann", ports()[0])
	if err != nil {
		return err
	}
	if client.Connection.ID() == "" || client.Connection.Key() == "" {
		return errors.New("a connection has no id or key")
	}
	client.Close()
	return await(client, ably.ConnectionStateClosed)
}

func wrongKey() error {
	name := strings.Split(os.Getenv("KEY"), ":")[0]
	client, err := ably.NewRealtime(options("ann", ports()[0], ably.WithKey(name+":wrong"))...)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := await(client, ably.ConnectionStateFailed); err != nil {
		return err
	}
	if code := client.Connection.ErrorReason().Code; int(code) != 40101 {
		return fmt.Errorf("code %d", code)
	}
	return nil
}

func publishes() error {
	reader, err := connected("ann", ports()[0])
	if err != nil {
		return err
	}
	defer reader.Close()
	writer, err := connected("bob", ports()[1])
	if err != nil {
		return err
	}
	defer writer.Close()
	name := unique()
	_, heard, err := subscribed(reader, name)
	if err != nil {
		return err
	}
	channel := writer.Channels.Get(name)
	answers := make(chan error, 50)
	for number := 0; number < 50; number++ {
		if err := channel.PublishAsync("n", strconv.Itoa(number), func(err error) { answers <- err }); err != nil {
			return err
		}
	}
	got, err := gather(heard, 50)
	if err != nil {
		return err
	}
	for number, data := range got {
		if data != strconv.Itoa(number) {
			return fmt.Errorf("out of order: %v", got)
		}
		if err := <-answers; err != nil {
			return err
		}
	}
	return nil
}

func subscribeThenPublish() error {
	client, err := connected("ann", ports()[0])
	if err != nil {
		return err
	}
	defer client.Close()
	for round := 0; round < 20; round++ {
		channel, heard, err := subscribed(client, unique())
		if err != nil {
			return err
		}
		if err := channel.Publish(within(), "n", "mine"); err != nil {
			return err
		}
		if _, err := gather(heard, 1); err != nil {
			return err
		}
	}
	return nil
}

func history() error {
	client, err := connected("ann", ports()[0])
	if err != nil {
		return err
	}
	defer client.Close()
	channel := client.Channels.Get(unique())
	for number := 0; number < 7; number++ {
		if err := channel.Publish(within(), "n", strconv.Itoa(number)); err != nil {
			return err
		}
	}
	pages, err := channel.History(ably.HistoryWithLimit(3), ably.HistoryWithDirection(ably.Forwards)).Pages(within())
	if err != nil {
		return err
	}
	var got []string
	for pages.Next(within()) {
		for _, message := range pages.Items() {
			got = append(got, fmt.Sprint(message.Data))
		}
	}
	if err := pages.Err(); err != nil {
		return err
	}
	if strings.Join(got, "") != "0123456" {
		return fmt.Errorf("history is %v", got)
	}
	return nil
}

func presence() error {
	watcher, err := connected("ann", ports()[0])
	if err != nil {
		return err
	}
	defer watcher.Close()
	member, err := connected("bob", ports()[1])
	if err != nil {
		return err
	}
	defer member.Close()
	name := unique()
	events := make(chan string, 100)
	channel := watcher.Channels.Get(name)
	_, err = channel.Presence.SubscribeAll(within(), func(message *ably.PresenceMessage) {
		events <- fmt.Sprintf("%v %s %v", message.Action, message.ClientID, message.Data)
	})
	if err != nil {
		return err
	}
	theirs := member.Channels.Get(name).Presence
	if err := theirs.Enter(within(), "here"); err != nil {
		return err
	}
	if _, err := gather(events, 1); err != nil {
		return err
	}
	members, err := channel.Presence.Get(within())
	if err != nil {
		return err
	}
	if len(members) != 1 || members[0].ClientID != "bob" || fmt.Sprint(members[0].Data) != "here" {
		return fmt.Errorf("members are %v", members)
	}
	if err := theirs.Update(within(), "still here"); err != nil {
		return err
	}
	if err := theirs.Leave(within(), "gone"); err != nil {
		return err
	}
	told, err := gather(events, 2)
	if err != nil || !strings.Contains(told[1], "gone") {
		return fmt.Errorf("%v %v", told, err)
	}
	return nil
}

func resumes() error {
	line, err := newNetwork(ports()[0])
	if err != nil {
		return err
	}
	defer line.listener.Close()
	client, err := connected("ann", line.port(), ably.WithDisconnectedRetryTimeout(200*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	writer, err := connected("bob", ports()[1])
	if err != nil {
		return err
	}
	defer writer.Close()
	name := unique()
	_, heard, err := subscribed(client, name)
	if err != nil {
		return err
	}
	id := client.Connection.ID()
	channel := writer.Channels.Get(name)
	for round := 0; round < 3; round++ {
		line.cut()
		if err := channel.Publish(within(), "n", strconv.Itoa(round)); err != nil {
			return err
		}
		got, err := gather(heard, 1)
		if err != nil || got[0] != strconv.Itoa(round) {
			return fmt.Errorf("after the drop: %v %v", got, err)
		}
	}
	if client.Connection.ID() != id {
		return errors.New("it is another connection")
	}
	return nil
}

func tokens() error {
	rest, err := ably.NewREST(options("ann", ports()[0])...)
	if err != nil {
		return err
	}
	token, err := rest.Auth.RequestToken(within(), &ably.TokenParams{ClientID: "ann", Capability: `{"plain:*":["subscribe"]}`})
	if err != nil {
		return err
	}
	client, err := connected("ann", ports()[0], ably.WithKey(""), ably.WithToken(token.Token))
	if err != nil {
		return err
	}
	defer client.Close()
	channel, _, err := subscribed(client, unique())
	if err != nil {
		return err
	}
	var refused *ably.ErrorInfo
	if err := channel.Publish(within(), "n", "x"); !errors.As(err, &refused) || int(refused.Code) != 40160 {
		return fmt.Errorf("publishing without the right: %v", err)
	}
	return nil
}

func main() {
	cases := []struct {
		feature string
		play    func() error
	}{
		{"connects and closes", connects},
		{"a wrong key fails for good", wrongKey},
		{"publishes arrive in order, on another gateway", publishes},
		{"a publish right after subscribing comes back", subscribeThenPublish},
		{"history in pages", history},
		{"presence: enter, members, update, leave", presence},
		{"a dropped connection is resumed and nothing is missed", resumes},
		{"tokens: requested, and limited to their rights", tokens},
	}
	for _, one := range cases {
		line := map[string]any{"feature": one.feature, "ok": true, "error": ""}
		if err := one.play(); err != nil {
			line["ok"], line["error"] = false, err.Error()
		}
		text, err := json.Marshal(line)
		if err != nil {
			panic(err)
		}
		fmt.Println("case " + string(text))
	}
}
