// Eclipse Paho in Go (MQTT 3.1.1); the lines are those of ../../README.md, and the rule is that of ../wire.py.
// Built from Debian's sources with GO111MODULE=off, so nothing is fetched.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io/ioutil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

const patience = 10 * time.Second

type request struct {
	word   string
	fields map[string]string
}

func parse(line string) request {
	words := strings.Fields(line)
	found := request{words[0], map[string]string{}}
	for _, pair := range words[1:] {
		cut := strings.Index(pair, "=")
		found.fields[pair[:cut]] = pair[cut+1:]
	}
	return found
}

func (r request) has(key string) bool {
	_, found := r.fields[key]
	return found
}

func (r request) text(key string) string {
	value, err := url.PathUnescape(r.fields[key])
	must(err)
	return value
}

func (r request) number(key string, otherwise int) int {
	if !r.has(key) {
		return otherwise
	}
	value, err := strconv.Atoi(r.fields[key])
	must(err)
	return value
}

func (r request) binary(key string) []byte {
	value, err := hex.DecodeString(r.fields[key])
	must(err)
	return value
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var telling sync.Mutex

func tell(line string, values ...interface{}) {
	telling.Lock()
	defer telling.Unlock()
	fmt.Printf(line+"\n", values...)
}

func bit(flag bool) int {
	if flag {
		return 1
	}
	return 0
}

var client mqtt.Client

func connect(r request) {
	pem, err := ioutil.ReadFile(r.text("ca"))
	must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	secrets := &tls.Config{RootCAs: roots}
	if r.has("cert") {
		pair, err := tls.LoadX509KeyPair(r.text("cert"), r.text("key"))
		must(err)
		secrets.Certificates = []tls.Certificate{pair}
	}
	options := mqtt.NewClientOptions()
	transport := "ssl"
	if r.has("transport") {
		transport = r.text("transport")
	}
	options.AddBroker(fmt.Sprintf("%s://%s:%d%s", transport, r.text("host"), r.number("port", 0), r.text("path")))
	options.SetTLSConfig(secrets)
	options.SetClientID(r.text("id"))
	options.SetProtocolVersion(uint(r.number("version", 4)))
	options.SetCleanSession(r.number("clean", 1) == 1)
	options.SetKeepAlive(time.Duration(r.number("keepalive", 60)) * time.Second)
	options.SetConnectTimeout(patience)
	options.SetAutoReconnect(false)
	if r.has("will_topic") {
		options.SetBinaryWill(r.text("will_topic"), r.binary("will_payload"), byte(r.number("will_qos", 0)), r.number("will_retain", 0) == 1)
	}
	options.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		tell("message topic=%s payload=%x qos=%d retain=%d dup=%d",
			strings.ReplaceAll(url.PathEscape(m.Topic()), "%2F", "/"), m.Payload(), m.Qos(), bit(m.Retained()), bit(m.Duplicate()))
	})
	options.SetConnectionLostHandler(func(mqtt.Client, error) { tell("closed") })
	client = mqtt.NewClient(options)
	token := client.Connect().(*mqtt.ConnectToken)
	if !token.WaitTimeout(patience) {
		tell("refused why=timeout")
	} else if token.Error() != nil {
		if code := token.ReturnCode(); code > 0 && code <= 5 {
			tell("refused reason=%d why=%s", code, url.PathEscape(token.Error().Error()))
		} else {
			tell("refused why=%s", url.PathEscape(token.Error().Error()))
		}
	} else {
		tell("connected") // this version of the library does not say whether there was a session
	}
}

func done(token mqtt.Token) bool {
	if !token.WaitTimeout(patience) {
		tell("failed why=timeout")
		return false
	}
	if token.Error() != nil {
		tell("failed why=%s", url.PathEscape(token.Error().Error()))
		return false
	}
	return true
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		r := parse(line)
		switch r.word {
		case "connect":
			connect(r)
		case "publish":
			if done(client.Publish(r.text("topic"), byte(r.number("qos", 0)), r.number("retain", 0) == 1, r.binary("payload"))) {
				tell("published")
			}
		case "subscribe":
			token := client.Subscribe(r.text("filter"), byte(r.number("qos", 0)), nil).(*mqtt.SubscribeToken)
			if done(token) {
				tell("subscribed reason=%d", token.Result()[r.text("filter")])
			}
		case "unsubscribe":
			if done(client.Unsubscribe(r.text("filter"))) {
				tell("unsubscribed")
			}
		case "disconnect":
			if client != nil && client.IsConnected() {
				client.Disconnect(100)
			}
			client = nil
			tell("disconnected")
		}
	}
}
