package handlers

type Users interface{}

func (s *server) bindReads() {}
func (s *server) bindUserV2() {}
func (s *server) bindAdmin() {}
func (s *server) serveOpenAPI() {}
